# ruff: noqa: RUF012

from django.db import migrations, models


def place_runs(apps, schema_editor):
    """Runs of tasks made before a task could name several sites are at the one that it names."""
    for task in apps.get_model("prodsys", "Task").objects.all():
        task.runs.update(site=task.sites)


class Migration(migrations.Migration):
    dependencies = [
        ("prodsys", "0003_corrections"),
    ]

    operations = [
        migrations.RenameField(model_name="task", old_name="site", new_name="sites"),
        migrations.AlterField(
            model_name="task",
            name="sites",
            field=models.CharField(
                max_length=500, help_text="names, in the order in which runs are given to them"
            ),
        ),
        migrations.AddField(
            model_name="run",
            name="site",
            field=models.CharField(blank=True, default="", max_length=50),
        ),
        migrations.RunPython(place_runs, migrations.RunPython.noop),
    ]
