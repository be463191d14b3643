# ruff: noqa: RUF012
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("prodsys", "0002_ended_at_index"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="corrected",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="job",
            name="home",
            field=models.CharField(blank=True, default="", max_length=300),
        ),
    ]
