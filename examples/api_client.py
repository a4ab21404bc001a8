"""A video from a running server by its HTTP API: python -m examples.api_client http://127.0.0.1:7860 ada.mp4"""

import json
import secrets
import sys
import time
from pathlib import Path

import httpx  # comes with gradio

PEOPLE = Path(__file__).resolve().parent / "people"


def content(answer: httpx.Response) -> dict:
    """The server's answer; an error is one sentence, and ends the program."""
    if answer.is_error:
        sys.exit(answer.json()["error"])
    return answer.json()


def main(url: str, out: str) -> None:
    api = httpx.Client(base_url=f"{url.rstrip('/')}/api/v1", timeout=60)
    api.headers["Authorization"] = f"Bearer {content(api.post('/tokens'))['token']}"
    job = content(
        api.post(
            "/jobs",
            files={
                "photo": ("ada.png", (PEOPLE / "ada.png").read_bytes()),
                "photo_poses": ("ada.poses.npz", (PEOPLE / "ada.poses.npz").read_bytes()),
            },
            data={"motion_name": "walk", "consent": "true", "options": json.dumps({"recipe": "none", "seed": 7})},
            # send the same again after a broken connection: it is one job
            headers={"Idempotency-Key": secrets.token_hex(16)},
        )
    )
    while job["state"] not in ("done", "failed", "cancelled"):
        time.sleep(1)
        job = content(api.get(f"/jobs/{job['id']}"))
        print(job["state"], job["progress"] or f"place {job['place']} in the queue")
    if job["state"] != "done":
        sys.exit(job["error"] or "The job was stopped.")
    result = api.get(f"/jobs/{job['id']}/result").raise_for_status()
    print(Path(out).write_bytes(result.content), "bytes in", out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
