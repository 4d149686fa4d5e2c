import grpc
import pytest

from diredi import errors
from diredi.rpc.status import RETRY_AFTER_MS, code_of, error_of, retry_after_s

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DirediError)]
BY_STATUS = [kind for kind in KINDS if kind is not errors.RateLimited]
"""Those that the status alone tells apart; metadata beside it say that a caller was too fast."""


@pytest.mark.parametrize("kind", BY_STATUS)
def test_every_error_has_a_code_and_comes_back_as_itself_or_its_parent(kind):
    back = error_of(code_of(kind("site-9 is not known: register it")), "site-9 is not known: register it")

    assert isinstance(kind("x"), type(back)) or (kind, type(back)) == (errors.DirediError, errors.RemoteFailure)
    assert str(back) == "site-9 is not known: register it"


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        ((), None),
        (None, None),
        ((("other", "5"),), None),
        (((RETRY_AFTER_MS, "1500"),), 1.5),
        (((RETRY_AFTER_MS, "soon"),), None),
        (((RETRY_AFTER_MS, "-1"),), None),
    ],
)
def test_how_long_to_wait_is_beside_the_status(metadata, seconds):
    assert retry_after_s(metadata) == seconds


def test_the_codes_are_those_that_the_error_tree_promises():
    promised = {}
    for line in errors.__doc__.splitlines():
        words = line.replace("├──", "").replace("└──", "").split()
        if words and words[0] in vars(errors) and "exit" in words:
            promised[words[0]] = words[words.index("exit") - 1]

    assert len(promised) == 11
    assert promised == {name: code_of(getattr(errors, name)("x")).name for name in promised}


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_becomes_an_error_with_a_sentence(code):
    error = error_of(code, "", "/diredi.v1.CycleService/GetCycle")

    assert isinstance(error, errors.DirediError)
    assert ": " in str(error)


def test_only_what_may_be_retried_becomes_unreachable():
    retried = {code for code in grpc.StatusCode if isinstance(error_of(code, ""), errors.Unreachable)}

    assert retried == {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNAUTHENTICATED,  # until our certificate is renewed
    }


def test_a_refused_connection_names_the_address_and_the_remedy():
    details = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7070: Connection refused (111)"

    error = error_of(grpc.StatusCode.UNAVAILABLE, details)

    assert str(error) == (
        "the other side at 127.0.0.1:7070 cannot be reached: nothing listens there: start it, or check the address"
    )
