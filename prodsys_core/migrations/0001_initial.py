# ruff: noqa: RUF012  (as Django writes it)

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Job",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("file", models.CharField(max_length=100)),
                ("chunk", models.PositiveIntegerField()),
                ("n_events", models.PositiveIntegerField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="LastLook",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=30, unique=True)),
                ("at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Lease",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=30, unique=True)),
                ("owner", models.CharField(max_length=200)),
                ("fence", models.BigIntegerField()),
                ("until", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="MergeGroup",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("product", models.CharField(max_length=10)),
                ("piece", models.PositiveSmallIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="MergePlan",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("generation", models.PositiveSmallIntegerField()),
                ("made_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="PandaAttempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.PositiveSmallIntegerField()),
                ("job_name", models.CharField(max_length=200, unique=True)),
                ("panda_id", models.BigIntegerField(null=True, unique=True)),
                ("made_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reason", models.CharField(blank=True, default="", max_length=60)),
                ("message", models.CharField(blank=True, default="", max_length=500)),
                ("status_at", models.DateTimeField()),
                ("number", models.PositiveIntegerField()),
                ("status", models.CharField(db_index=True, default="open", max_length=30)),
            ],
        ),
        migrations.CreateModel(
            name="SendBatch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("number", models.BigIntegerField(unique=True)),
                ("site", models.CharField(max_length=50)),
                ("panda_queue", models.CharField(max_length=50)),
                ("status", models.CharField(db_index=True, max_length=30)),
                ("n_jobs", models.PositiveIntegerField()),
                ("made_at", models.DateTimeField()),
                ("listed_digest", models.CharField(blank=True, default="", max_length=64)),
                ("listed_since", models.DateTimeField(null=True)),
                ("message", models.CharField(blank=True, default="", max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name="Task",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reason", models.CharField(blank=True, default="", max_length=60)),
                ("message", models.CharField(blank=True, default="", max_length=500)),
                ("status_at", models.DateTimeField()),
                ("name", models.CharField(max_length=200, unique=True)),
                ("type", models.CharField(max_length=50)),
                ("site", models.CharField(max_length=50)),
                ("production", models.CharField(max_length=50)),
                ("path", models.CharField(max_length=300)),
                ("soft", models.CharField(max_length=50)),
                ("year", models.PositiveSmallIntegerField(null=True)),
                ("period", models.CharField(blank=True, max_length=50)),
                ("prodslt", models.PositiveIntegerField(default=0)),
                ("phastver", models.PositiveIntegerField(default=7)),
                ("template", models.CharField(max_length=100)),
                ("files_source", models.CharField(max_length=20)),
                ("source", models.TextField(help_text="run numbers or raw file names, one a line")),
                ("catalogue", models.CharField(blank=True, max_length=1000)),
                ("files_home", models.CharField(max_length=300)),
                ("files_home_prefix", models.CharField(max_length=300)),
                ("max_attempts", models.PositiveSmallIntegerField(default=5)),
                ("comment", models.TextField(blank=True)),
                ("status", models.CharField(db_index=True, default="draft", max_length=30)),
                (
                    "files_skipped",
                    models.PositiveIntegerField(default=0, help_text="zero-event files left out"),
                ),
                ("source_failures", models.PositiveIntegerField(default=0)),
                ("next_try_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="MergeInput",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("lfn", models.CharField(max_length=200)),
                ("size", models.BigIntegerField()),
                ("n_events", models.PositiveIntegerField(null=True)),
                (
                    "group",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="inputs",
                        to="prodsys.mergegroup",
                    ),
                ),
                (
                    "job",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="prodsys.job"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="mergegroup",
            name="plan",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="groups", to="prodsys.mergeplan"
            ),
        ),
        migrations.CreateModel(
            name="AttemptEnd",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("status", models.CharField(max_length=30)),
                ("reason", models.CharField(max_length=60)),
                ("message", models.CharField(blank=True, max_length=500)),
                ("charge", models.CharField(max_length=20)),
                ("n_events", models.BigIntegerField(null=True)),
                ("node", models.CharField(blank=True, max_length=128)),
                ("files", models.TextField(default="{}")),
                ("ended_at", models.DateTimeField()),
                (
                    "attempt",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="end",
                        to="prodsys.pandaattempt",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="mergeplan",
            name="run",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="merge_plans", to="prodsys.run"
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="run",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="jobs", to="prodsys.run"
            ),
        ),
        migrations.AddField(
            model_name="pandaattempt",
            name="batch",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="attempts", to="prodsys.sendbatch"
            ),
        ),
        migrations.CreateModel(
            name="Step",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("reason", models.CharField(blank=True, default="", max_length=60)),
                ("message", models.CharField(blank=True, default="", max_length=500)),
                ("status_at", models.DateTimeField()),
                ("kind", models.CharField(max_length=20)),
                ("work", models.CharField(max_length=100, unique=True)),
                ("status", models.CharField(default="defined", max_length=30)),
                ("attempt", models.PositiveSmallIntegerField(default=0)),
                ("charged", models.PositiveSmallIntegerField(default=0)),
                ("uncharged", models.PositiveSmallIntegerField(default=0)),
                (
                    "failures",
                    models.PositiveSmallIntegerField(default=0, help_text="of work done here, in a row"),
                ),
                ("panda_id", models.BigIntegerField(null=True)),
                ("next_try_at", models.DateTimeField(null=True)),
                (
                    "batch",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="steps",
                        to="prodsys.sendbatch",
                    ),
                ),
                (
                    "group",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="steps",
                        to="prodsys.mergegroup",
                    ),
                ),
                (
                    "job",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="steps",
                        to="prodsys.job",
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="steps", to="prodsys.run"
                    ),
                ),
                (
                    "task",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="steps", to="prodsys.task"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="pandaattempt",
            name="step",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="attempts", to="prodsys.step"
            ),
        ),
        migrations.CreateModel(
            name="GroupCheck",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("unit", models.CharField(max_length=20)),
                ("expected", models.BigIntegerField(null=True)),
                ("in_chunks", models.BigIntegerField()),
                ("in_merged", models.BigIntegerField()),
                ("agrees", models.BooleanField()),
                ("checked_at", models.DateTimeField()),
                (
                    "group",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="prodsys.mergegroup"
                    ),
                ),
                (
                    "step",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="counts", to="prodsys.step"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="run",
            name="task",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="runs", to="prodsys.task"
            ),
        ),
        migrations.CreateModel(
            name="MergeLimit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("product", models.CharField(max_length=10)),
                ("bytes_max", models.BigIntegerField()),
                ("events_max", models.BigIntegerField(null=True)),
                ("files_max", models.IntegerField(null=True)),
                (
                    "task",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="merge_limits",
                        to="prodsys.task",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="job",
            name="task",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="jobs", to="prodsys.task"
            ),
        ),
        migrations.CreateModel(
            name="Transfer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("source", models.CharField(max_length=1000)),
                ("target", models.CharField(max_length=1000)),
                ("size", models.BigIntegerField()),
                ("adler32", models.CharField(max_length=8)),
                ("asked_at", models.DateTimeField()),
                ("confirmed_at", models.DateTimeField(null=True)),
                (
                    "step",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="transfer",
                        to="prodsys.step",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Transition",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("subject", models.CharField(max_length=5)),
                ("subject_id", models.BigIntegerField()),
                ("old", models.CharField(max_length=30)),
                ("new", models.CharField(max_length=30)),
                ("role", models.CharField(max_length=10)),
                ("who", models.CharField(max_length=150)),
                ("reason", models.CharField(blank=True, max_length=60)),
                ("at", models.DateTimeField()),
            ],
            options={
                "indexes": [models.Index(fields=["subject", "subject_id"], name="story_of_subject")],
            },
        ),
        migrations.AddConstraint(
            model_name="mergegroup",
            constraint=models.UniqueConstraint(
                fields=("plan", "product", "piece"), name="piece_once_per_plan"
            ),
        ),
        migrations.AddConstraint(
            model_name="mergeplan",
            constraint=models.UniqueConstraint(fields=("run", "generation"), name="generation_once_per_run"),
        ),
        migrations.AddConstraint(
            model_name="pandaattempt",
            constraint=models.UniqueConstraint(fields=("step", "number"), name="attempt_number_once"),
        ),
        migrations.AddIndex(
            model_name="step",
            index=models.Index(fields=["task", "kind", "status"], name="step_by_task"),
        ),
        migrations.AddIndex(
            model_name="step",
            index=models.Index(fields=["run", "kind", "status"], name="step_by_run"),
        ),
        migrations.AddIndex(
            model_name="step",
            index=models.Index(fields=["status", "kind"], name="step_by_status"),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(fields=("task", "number"), name="run_once_per_task"),
        ),
        migrations.AddConstraint(
            model_name="mergelimit",
            constraint=models.UniqueConstraint(fields=("task", "product"), name="one_limit_per_product"),
        ),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.UniqueConstraint(fields=("task", "file"), name="file_once_per_task"),
        ),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.UniqueConstraint(fields=("run", "chunk"), name="chunk_once_per_run"),
        ),
    ]
