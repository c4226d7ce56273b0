"""`make run`: the real thing on this machine, against Yahoo, the DAGs on their schedules, until Ctrl-C."""

from __future__ import annotations

import argparse
import http.client
import os
from urllib.parse import urlsplit

from curl_cffi import requests

from include.mltrading.configuration.settings import Settings
from include.mltrading.operations.validate import validate
from include.standalone.console import say
from include.standalone.demo import start_everything, tell_addresses
from include.standalone.runs import COLLECTION, FEATURES, LOAD
from include.standalone.stack import Stack

_YAHOO = "https://query2.finance.yahoo.com"


def main(arguments: list[str]) -> int:
    """Start everything and wait; leaves by Ctrl-C or an error."""
    argparse.ArgumentParser(prog="make run", description=__doc__).parse_args(arguments)
    settings = Settings.from_environment()
    validate(settings)
    _preflight(settings)
    with Stack(report=say) as stack:
        start_everything(stack, None)
        # The collection first: the features' gate looks for its run.
        for dag_id in (LOAD, COLLECTION, FEATURES):
            stack.airflow("dags", "unpause", dag_id)
        tell_addresses(stack)
        say(
            f"First load   trigger {LOAD} in the UI: a year of bars for every symbol\n"
            "On weekdays from 9:00 to 16:00 New York, bars and features follow by themselves. Ctrl-C ends it."
        )
        stack.wait()
    return 0


def _preflight(settings: Settings) -> None:
    """Say whether Yahoo can be reached; the system starts either way, and each failed symbol says so too."""
    base = settings.yahoo_url or _YAHOO
    try:
        # Any answer will do; a plain client would be turned away at the door.
        status = requests.get(base, timeout=10, impersonate="chrome", allow_redirects=False).status_code
    except (requests.RequestsError, OSError, http.client.HTTPException) as error:
        proxy = " through the proxy" if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") else ""
        say(
            f"WARNING: {urlsplit(base).netloc} cannot be reached{proxy} ({type(error).__name__}): "
            "collections will fail until it can, and no other data takes its place"
        )
    else:
        say(f"{urlsplit(base).netloc} answers ({status})")
