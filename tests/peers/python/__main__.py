"""A client as people write them with Python's requests: python-client URL. Prints a line for each check."""
import hashlib
import sys

import requests


def echoed(answer):
    answer.raise_for_status()
    return answer.json()


def one_session(url):
    with requests.Session() as session:
        for _ in range(100):
            assert echoed(session.get(f"{url}/echo"))["Proto"] == "HTTP/1.1"


def a_generator_as_the_body(url):
    pieces = [b"piece %d;" % n for n in range(1000)]
    seen = echoed(requests.post(f"{url}/echo", data=iter(pieces), timeout=30))
    assert seen["Body"] == hashlib.sha256(b"".join(pieces)).hexdigest(), seen


def a_form_and_a_file(url):
    seen = echoed(requests.post(f"{url}/echo", data={"a": "1"}, files={"f": b"x" * 300_000}, timeout=30))
    assert seen["Length"] > 300_000 and seen["Headers"]["Content-Type"][0].startswith("multipart/form-data")


def every_method(url):
    for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"):
        assert echoed(requests.request(method, f"{url}/echo", timeout=30))["Method"] == method
    head = requests.head(f"{url}/echo", timeout=30)
    assert head.status_code == 200 and head.content == b""


def an_answer_read_in_pieces(url):
    with requests.get(f"{url}/large?bytes=5000000", stream=True, timeout=30) as answer:
        assert sum(len(piece) for piece in answer.iter_content(8192)) == 5_000_000


def main(url):
    for check in (one_session, a_generator_as_the_body, a_form_and_a_file, every_method, an_answer_read_in_pieces):
        check(url)
        print(f"ok: {check.__name__}")


main(sys.argv[1])
