# ruff: noqa: RUF012

from django.db import migrations, models


class Migration(migrations.Migration):
    """Until now one number: of events read, of a merge of those written."""

    dependencies = [
        ("prodsys", "0007_run_next_try"),
    ]

    operations = [
        migrations.RenameField(model_name="attemptend", old_name="n_events", new_name="n_read"),
        migrations.AddField(
            model_name="attemptend", name="n_written", field=models.BigIntegerField(null=True)
        ),
    ]
