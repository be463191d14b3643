"""Django on a database of its own: SQLite, or the MariaDB that PRODSYS_TEST_DATABASE (JSON) describes.

Set up while this file is imported: the test modules beside it import models when they are collected.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
FOLDER = Path(tempfile.mkdtemp(prefix="prodsys-test-"))
SITE_ROOT = FOLDER / "site"


def _configuration():
    database = json.loads(os.environ.get("PRODSYS_TEST_DATABASE", "null"))
    return {
        "instance": "test",
        "state_dir": str(FOLDER / "state"),
        "database": database or {"engine": "sqlite", "path": str(FOLDER / "db.sqlite")},
        "panda": {"url": "http://127.0.0.1:1", "settle_s": 900, "status_every_s": 0},
        "sites": [
            {
                "name": "DEMO",
                "panda_queue": "LONG",
                "merge_queue": "SHORT",
                "files": {"root": str(SITE_ROOT)},
                "tape": {"kind": "directory", "root": str(FOLDER / "tape")},
                "commands": {
                    "reconstruct": "reco --raw {raw} --mdst {mdst} --hist {hist} --dump {dump}",
                    "DDD filtering": "ddd {raw} {dump}",
                    "merge mdst": "merge-mdst --inputs-from {inputs} --out {out}",
                    "merge hist": "merge-hist --inputs-from {inputs} --out {out}",
                    "merge dump": "merge-dump --inputs-from {inputs} --out {out}",
                },
            }
        ],
    }


def _set_up():
    import django

    path = FOLDER / "prodsys.yaml"
    path.write_text(yaml.safe_dump(_configuration()), encoding="utf-8")
    os.environ["PRODSYS_CONFIG"] = str(path)
    os.environ["DJANGO_SETTINGS_MODULE"] = "prodsys_core.settings.local"
    django.setup()


_set_up()


def pytest_sessionfinish():
    shutil.rmtree(FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def tables_made():
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


@pytest.fixture
def rig(tables_made, tmp_path):
    """A clean database with its rig."""
    from django.apps import apps
    from django.db import connection
    from prodsys_rig import Rig

    with connection.constraint_checks_disabled():
        for model in apps.get_app_config("prodsys").get_models():
            model.objects.all()._raw_delete(model.objects.db)
    shutil.rmtree(FOLDER / "tape", ignore_errors=True)
    return Rig(SITE_ROOT, tmp_path)
