"""The pages: behind a login, every table can be looked at, nothing can be changed."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from django.apps import apps
from django.test import Client

HOST = "localhost"


@pytest.fixture
def viewer(rig):
    from django.contrib.auth.models import User

    User.objects.all().delete()
    user = User.objects.create_superuser("ann", password="a good one 1")
    client = Client(HTTP_HOST=HOST)
    client.force_login(user)
    return client


def test_pages_need_a_login(rig):
    assert Client(HTTP_HOST=HOST).get("/admin/prodsys/task/").status_code == 302


def test_other_hosts_are_refused(rig):
    assert Client(HTTP_HOST="evil.example").get("/admin/").status_code == 400


def test_every_table_is_shown_and_nothing_can_be_changed(rig, viewer):
    from django.contrib import admin

    rig.sent_task({274495: [300]})
    rig.run_jobs()
    rig.tick()
    registered = [
        model for model in apps.get_app_config("prodsys").get_models() if admin.site.is_registered(model)
    ]
    assert registered
    for model in registered:
        name = model._meta.model_name
        page = viewer.get(f"/admin/prodsys/{name}/")
        assert page.status_code == 200
        assert f"/admin/prodsys/{name}/add/" not in page.content.decode()
        assert viewer.post(f"/admin/prodsys/{name}/add/", {}).status_code == 403
        row = model.objects.first()
        if row is not None:
            address = f"/admin/prodsys/{name}/{row.pk}/change/"
            assert viewer.get(address).status_code == 200
            assert viewer.post(address, {"status": "done"}).status_code == 403
            assert viewer.post(f"/admin/prodsys/{name}/{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_text_of_a_task_is_escaped(rig, viewer):
    rig.create({274495: [300]})
    type(rig.task()).objects.update(message="<script>x</script>")
    assert "<script>x</script>" not in viewer.get("/admin/prodsys/task/").content.decode()


def test_serve_answers_on_loopback_and_ends_on_sigterm(rig):
    process = subprocess.Popen(
        [sys.executable, "-m", "prodsys_core.cli", "serve", "--port", "0"],
        env=os.environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, line
        with urllib.request.urlopen(address[0] + "admin/login/") as page:
            text = page.read().decode()
        style = re.search(r'href="(/static/admin/css/base[^"]*\.css)"', text)[1]
        with urllib.request.urlopen(address[0] + style[1:]) as sheet:
            assert sheet.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.close()
        assert process.wait(20) == 0


def test_port_in_use_is_one_line(rig):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = subprocess.run(
            [sys.executable, "-m", "prodsys_core.cli", "serve", "--port", str(taken.getsockname()[1])],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "Address already in use" in result.stderr
