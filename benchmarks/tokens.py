"""What one image scan costs in input tokens, cached ones counted at a tenth: `python -m benchmarks.tokens`.

Text is counted with the o200k tokenizer on the bytes that the model server receives, the schema included. The image is
counted by the provider's formula for models that see patches of 32 × 32 pixels, at 1.2 tokens a patch, as measured by
others for GPT-5 (community.openai.com, June 2026). Cached is what an earlier request of the same purpose began with, if
that is at least 1 024 tokens, in steps of 128.
"""

import argparse
import asyncio
import json
import math
import tempfile
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import bpe_openai
import orjson
from PIL import Image

from cli.stack.stack import StackOptions, running_stack
from client import BunriClient
from tests.support.image_server import ImageServer, image_server, reply
from tests.support.openai_server import base_url, openai_server, purpose_of

SIZES = ((1024, 768), (1152, 864), (4032, 3024))
LEAST_CACHED = 1024
STEP = 128
PATCH = 32
TOKENS_PER_PATCH = 1.2
CACHED_SHARE = 0.1

tokenizer = bpe_openai.get_encoding("o200k_base")


def photo(size: tuple[int, int]) -> bytes:
    """A real photo, enlarged: what it shows does not matter, its size does."""
    with Image.open(Path(__file__).parent.parent / "samples" / "glass-1.jpg") as sample:
        out = BytesIO()
        sample.resize(size).save(out, "JPEG", quality=88)
    return out.getvalue()


def tokens_of(request: dict[str, Any]) -> tuple[list[int], int]:
    """The request's text as tokens, in the order in which the provider sees it, and the tokens of its image."""
    schema = json.dumps(request["text"], ensure_ascii=False) if "text" in request else ""
    texts, image = [schema], 0
    for message in request["input"]:
        for part in message["content"]:
            if part["type"] == "input_text":
                texts.append(part["text"])
            else:
                image += image_tokens(part["image_url"])
    return [token for text in texts for token in tokenizer.encode(text)], image


def image_tokens(data_url: str) -> int:
    with Image.open(BytesIO(b64decode(data_url.partition(",")[2]))) as sent:
        return math.ceil(math.ceil(sent.width / PATCH) * math.ceil(sent.height / PATCH) * TOKENS_PER_PATCH)


def cached_tokens(tokens: list[int], earlier: list[int]) -> int:
    common = next(
        (n for n, (one, other) in enumerate(zip(tokens, earlier, strict=False)) if one != other), len(earlier)
    )
    return common // STEP * STEP if common >= LEAST_CACHED else 0


async def scan(size: tuple[int, int], model: ImageServer, origin: ImageServer, client: BunriClient) -> dict[str, Any]:
    """The second scan of such a photo, as a model that has lately seen another one bills it."""
    origin.on("/photo.jpg", reply(200, photo(size)))
    requests = []
    for question in ("", "뚜껑은 어떻게 하나요?"):
        model.requests.clear()
        submitted = await client.submit(origin.url("/photo.jpg"), user_input=question)
        await client.wait(submitted.job_id)
        requests.append({purpose_of(each): tokens_of(orjson.loads(each.body)) for each in model.requests})
    cold, warm = requests
    row: dict[str, Any] = {"photo": "{} × {}".format(*size)}
    for purpose, (text, image) in warm.items():
        cached = cached_tokens(text, cold[purpose][0])
        row |= {f"{purpose} text": len(text), f"{purpose} cached": cached, f"{purpose} image": image}
    total = sum(value for name, value in row.items() if name.endswith((" text", " image")))
    cached = sum(value for name, value in row.items() if name.endswith(" cached"))
    return row | {"sent": total, "billed": round(total - (1 - CACHED_SHARE) * cached)}


async def measure() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, image_server() as origin, openai_server() as model:
        env = {
            "FETCH_ALLOW": "127.0.0.1",
            "RESULT_CACHE_TTL": "0",
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": base_url(model),
        }
        options = StackOptions(Path(folder), with_flower=False, env=env)
        async with running_stack(options) as stack, BunriClient(stack.api_url) as client:
            return [await scan(size, model, origin, client) for size in SIZES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    rows = asyncio.run(measure())
    if parser.parse_args().json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        print("   ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
