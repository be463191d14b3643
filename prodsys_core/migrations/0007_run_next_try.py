# ruff: noqa: RUF012

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("prodsys", "0006_heartbeat"),
    ]

    operations = [
        migrations.AddField(model_name="run", name="next_try_at", field=models.DateTimeField(null=True)),
    ]
