"""A video from a running server by its Gradio endpoints: python -m examples.gradio_api http://127.0.0.1:7860 ada.mp4"""

import os
import sys
import time
from pathlib import Path

import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

PEOPLE = Path(__file__).resolve().parent / "people"


def main(url: str, out: str) -> None:
    # with analytics_enabled=False: gradio_client calls home unless both are set
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # token: of Hugging Face; gradio_client sends the one that it finds on this machine to every server
    client = Client(url, token=False, verbose=False, download_files=False, analytics_enabled=False)

    def ask(endpoint: str, **given):
        """The server's answer; an error is one sentence, and ends the program."""
        try:
            return client.predict(api_name=f"/{endpoint}", **given)
        except AppError as error:
            sys.exit(error.message)

    token = ask("make_token")  # keep it: it alone shows your jobs
    job = ask(
        "submit",
        token=token,
        photo=handle_file(PEOPLE / "ada.png"),
        photo_poses=handle_file(PEOPLE / "ada.poses.npz"),
        motion_name="walk",
        consent=True,
        options={"recipe": "none", "seed": 7},
    )
    record = ask("status", token=token, job=job)
    while record["state"] not in ("done", "failed", "cancelled"):
        time.sleep(1)
        record = ask("status", token=token, job=job)
        print(record["state"], record["progress"] or f"place {record['place']} in the queue")
    if record["state"] != "done":
        sys.exit(record["error"] or "The job was stopped.")
    video = httpx.get(ask("result", token=token, job=job), timeout=60).raise_for_status()
    print(Path(out).write_bytes(video.content), "bytes in", out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
