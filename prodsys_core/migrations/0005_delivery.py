# ruff: noqa: RUF012
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("prodsys", "0004_sites"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="undelivered",
            field=models.CharField(blank=True, default="", max_length=500),
        ),
    ]
