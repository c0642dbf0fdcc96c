"""What an address says, which are refused, and that no secret in one is ever shown."""

import os
from pathlib import Path

import pytest

from sweep.common.addresses import LOCAL, PODS, SERVERS, STORES, Kinds, local, parse, tracker
from sweep.common.errors import InputError
from sweep.common.redaction import without_secrets

HOME = os.path.expanduser("~")
SECRET = "hide/me+1"


def refused(given: str, kinds: Kinds = STORES) -> str:
    with pytest.raises(InputError) as error:
        parse(given, "--store", kinds)
    said = str(error.value)
    assert said.startswith("--store ") and kinds.words in said and "\n" not in said
    return said


SPELLINGS = {
    "~/x": f"{HOME}/x",
    "~": HOME,
    "./~x": f"{os.getcwd()}/~x",
    "results": f"{os.getcwd()}/results",
    "exp#1?": f"{os.getcwd()}/exp#1?",
    "a:b/c": f"{os.getcwd()}/a:b/c",
    "/tmp/a:/b": "/tmp/a:/b",
    "file:///tmp/a": "/tmp/a",
    "file:/tmp/a": "/tmp/a",
    "file://localhost/tmp/a": "/tmp/a",
    "FILE:////tmp/a": "/tmp/a",
    "file:///tmp/a%20b%23": "/tmp/a b#",
    "s3://bucket": "s3://bucket",
    "S3://bucket//a///b/": "s3://bucket/a/b",
    "s3://bucket/user@host/a": "s3://bucket/user@host/a",
    "s3://bucket/a/?region=eu-1": "s3://bucket/a?region=eu-1",
    "s3://bucket/a?request_timeout=60&anonymous=True": "s3://bucket/a?request_timeout=60.0&anonymous=true",
    "s3://bucket?endpoint_override=localhost:9000&scheme=http": (
        "s3://bucket?endpoint_override=localhost:9000&scheme=http"
    ),
    "gs://bucket/a?project_id=p": "gs://bucket/a?project_id=p",
}


@pytest.mark.parametrize(("given", "meant"), SPELLINGS.items())
def test_the_spellings_of_an_address_have_one_form_which_is_read_again(given: str, meant: str) -> None:
    found = parse(given, "--store", STORES)
    assert str(found) == meant
    again = parse(meant, "--store", STORES)
    assert (str(again), again.local, again.options) == (meant, found.local, found.options)


def test_options_have_their_types_and_stand_in_no_name_below() -> None:
    found = parse("s3://b/a?request_timeout=60&anonymous=1&region=x", "--store", STORES)
    assert found.options == {"request_timeout": 60.0, "anonymous": True, "region": "x"}
    assert found.below("runs/a") == "s3://b/a/runs/a" and parse("/x", "", STORES).below("runs/a") == "/x/runs/a"


REFUSED = {
    "": "is empty",
    "  ": "is empty",
    "\t\n": "is empty",
    "s3://b/exp#1": "fragment",
    "s3://b#2": "fragment",
    "gs://b/p?project_id=1#x": "fragment",
    "file:///a#b": "neither fragment nor query",
    "file:///a?b=c": "neither fragment nor query",
    "s3://b/p?timeout=60": "unknown option 'timeout' after the ?; expected ",
    "s3://b/p?request_timeout=soon": "option request_timeout has an invalid value",
    "s3://b/p?request_timeout=-1": "option request_timeout has an invalid value",
    "s3://b/p?request_timeout": "option request_timeout has an invalid value",
    "s3://b/p?anonymous=perhaps": "option anonymous has an invalid value",
    "s3://b/p?region=": "option region has an invalid value",
    "s3://b?region=a&region=b": "given twice",
    "gs://b?region=a": "unknown option 'region'",
    "ftp://x/y": "unknown kind 'ftp'",
    "http://x": "unknown kind 'http'",
    "s3a://b/p": "did you mean s3://?",
    "gcs://b": "did you mean gs://?",
    "s3://": "names no bucket",
    "s3:///b": "names no bucket",
    "gs://?project_id=x": "names no bucket",
    "s3:/b/p": "two slashes",
    "s3:b/p": "two slashes",
    "s3://b/../p": "contains . or ..",
    "s3://b b/p": "not a valid bucket name",
    "file://": "an absolute path",
    "file:x": "an absolute path",
    "file://host/x": "another machine",
    "file://~/x": "another machine",
    "file:///%ff": "not UTF-8",
    "file:///%00": "NUL",
    "a\nb": "a control character",
    "a\0b": "a control character",
    "~no-such-user/x": "no such user",
    " results": "white space",
    "results ": "white space",
    " s3://b/p": "white space",
    "s3://b/p ": "white space",
    '"results"': "quotation marks",
    "'s3://b/p'": "quotation marks",
    "$HOME/x": "no shell has expanded",
    "${HOME}/x": "no shell has expanded",
    "/data/$USER/x": "no shell has expanded",
    "s3://b/$USER": "no shell has expanded",
    "--json": "looks like an option",
    r"C:\Users\me\x": "a Windows path",
    "C:/Users/me/x": "a Windows path",
    r"\\server\share": "a Windows path",
    "host:/data/x": "another machine",
    "me@host:x": "another machine",
    "dbfs:/x": "another machine",
    "s3//b/p": "misspelt",
    "s3 ://b/p": "misspelt",
    "s3://b:9000/p": "names a port: ?endpoint_override",
}


@pytest.mark.parametrize(("given", "why"), REFUSED.items(), ids=map(repr, REFUSED))
def test_what_is_not_understood_is_refused_with_what_is_allowed(given: str, why: str) -> None:
    assert why in refused(given)


@pytest.mark.parametrize(
    "name", [" x", "x ", "'x'", "$HOME", "~no-such-user", "-x", "C:\\x", "host:", "x#1", "x?y", "a:b"]
)
def test_a_folder_that_is_there_may_have_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    assert parse(name, "--store", STORES, tmp_path).local == tmp_path / name
    monkeypatch.chdir(tmp_path)
    assert parse(name, "--store", STORES).local == tmp_path / name


HOLDING_SECRETS = (
    f" s3://KEY:{SECRET}@b/p",
    f"'s3://KEY:{SECRET}@b/p'",
    f"s3//KEY:{SECRET}@b/p",
    f"me:{SECRET}@host:/p",
    f"s3://KEY:{SECRET}@b/p",
    "s3://hideme+1@b",
    f"s3://KEY:{SECRET}",
    f"s3://KEY:a?{SECRET}@b/p",
    f"s3://KEY:a#{SECRET}@b/p",
    f"s3://KEY%3A{SECRET}%40b",
    f"s3:/KEY:{SECRET}@b/p",
    f"s3:KEY:{SECRET}@b/p",
    f"s3a://KEY:{SECRET}@b/p",
    f"gs://KEY:{SECRET}@b/p",
    f"ftp://me:{SECRET}@host",
    f"KEY:{SECRET}@b/p",
    f"s3://b/p?secret_key={SECRET}",
    f"s3://b/p?access_key=x&session_token={SECRET}",
    f"s3://b/p?X-Amz-Signature={SECRET}",
    f"s3://b/p?{SECRET}",
    f"s3://b/p?other={SECRET}",
    f"s3://b/p?endpoint_override=me:{SECRET}@host",
    f"gs://b/p?access_token={SECRET}",
)


@pytest.mark.parametrize("kinds", [STORES, PODS, LOCAL])
@pytest.mark.parametrize("given", HOLDING_SECRETS)
def test_an_address_with_a_secret_is_refused_and_the_secret_is_not_shown(given: str, kinds: Kinds) -> None:
    said = refused(given, kinds)
    assert "hide" not in said and "me+1" not in said


TRACKERS = {
    ("tensorboard", "file:///tmp/tb"): "/tmp/tb",
    ("tensorboard", "logs"): "/base/logs",
    ("tensorboard", "~/tb"): f"{HOME}/tb",
    ("mlflow", "file:///tmp/ml"): "/tmp/ml",
    ("mlflow", "http://host:5000/"): "http://host:5000/",
    ("mlflow", "https://[::1]:5000/base"): "https://[::1]:5000/base",
    ("mlflow", "sqlite:///ml.db"): "sqlite:///ml.db",
    ("mlflow", "postgresql+psycopg2://me@host/db?sslmode=require"): (
        "postgresql+psycopg2://me@host/db?sslmode=require"
    ),
    ("mlflow", "databricks://profile"): "databricks://profile",
    ("mlflow", "databricks"): "databricks",
    ("tensorboard", "databricks"): "/base/databricks",
    ("tensorboard", "host:5000"): "/base/host:5000",
}


@pytest.mark.parametrize(("asked", "meant"), TRACKERS.items())
def test_a_tracker_s_folder_is_one_from_the_root_and_its_server_stays_as_it_is(
    asked: tuple[str, str], meant: str
) -> None:
    kind, given = asked
    assert tracker(given, kind, Path("/base")) == meant


@pytest.mark.parametrize(
    ("kind", "given", "why"),
    [
        ("tensorboard", "s3://b/x", "unknown kind 's3'"),
        ("tensorboard", "http://host", "unknown kind 'http'"),
        ("tensorboard", " ", "is empty"),
        ("mlflow", "neptune://x", "unknown kind 'neptune'"),
        ("mlflow", "http://", "names no host"),
        ("mlflow", "http://host:port", "does not name a host and port"),
        ("mlflow", "http://[::1", "does not name a host and port"),
        ("mlflow", "http://a b", "white space"),
        ("mlflow", "http://host/#x", "fragment"),
        ("mlflow", "http://host?x=1", "query"),
        ("mlflow", f"http://me:{SECRET}@host", "contains a password"),
        ("mlflow", f"http://{SECRET}@host", "contains a password"),
        ("mlflow", f"postgresql://me:{SECRET}@host/db", "contains a password"),
        ("mlflow", f"postgresql://me@host/db?password={SECRET}", "contains a password"),
        ("mlflow", f"me:{SECRET}@host:5000", "no scheme"),
        ("mlflow", "localhost:5000", "without http:// or https:// before it"),
        ("mlflow", "[::1]:5000/base", "without http:// or https:// before it"),
        ("mlflow", "sqlite:ml.db", "needs two slashes after the scheme"),
        ("mlflow", "$MLFLOW_TRACKING_URI", "no shell has expanded"),
        ("tensorboard", "~no-such-user/tb", "no such user"),
    ],
)
def test_a_tracker_that_is_not_understood_is_refused(kind: str, given: str, why: str) -> None:
    with pytest.raises(InputError) as error:
        tracker(given, kind, Path("/base"))
    assert why in str(error.value) and "hide" not in str(error.value)


def test_paths_of_this_machine_stay_as_given_but_for_homes_and_file_addresses() -> None:
    assert local("rows.csv", "--to") == Path("rows.csv")
    assert local(Path("~/rows.csv"), "--to") == Path(HOME) / "rows.csv"
    assert local(Path("file:///tmp/rows.csv"), "--to") == Path("/tmp/rows.csv"), "pathlib cuts the slashes"
    for elsewhere in ("s3://b/rows.csv", Path("s3://b/rows.csv"), "http://host/rows.csv", Path("gs://b/x")):
        with pytest.raises(InputError, match=r"--to .*unknown kind.*expected a path on this machine"):
            local(elsewhere, "--to")


def test_an_endpoint_has_a_scheme_and_a_host() -> None:
    found = parse("http://localhost:9000/", "AWS_ENDPOINT_URL", SERVERS)
    assert (found.scheme, found.host) == ("http", "localhost:9000")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"at s3://KEY:{SECRET}@b/p: no", "at s3://***@b/p: no"),
        (f"at 'http://me:{SECRET}@h:5000/x'", "at 'http://***@h:5000/x'"),
        (f"s3:/KEY:{SECRET}@b", "s3:/***@b"),
        ("GET https://h/x?X-Amz-Signature=abc&part=2 failed", "GET https://h/x?X-Amz-Signature=***&part=2 failed"),
        ("S3FileSystem(secret_key='abc', region='x')", "S3FileSystem(secret_key=***, region='x')"),
        ("password=abc", "password=***"),
        (
            "nothing at http://host:8265 for a@b in s3://b/user@x",
            "nothing at http://host:8265 for a@b in s3://b/user@x",
        ),
    ],
)
def test_secrets_are_taken_out_of_what_others_say(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
