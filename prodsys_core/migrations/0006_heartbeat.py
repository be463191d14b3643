# ruff: noqa: RUF012

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("prodsys", "0005_delivery"),
    ]

    operations = [
        migrations.AddField(
            model_name="lease",
            name="last_tick",
            field=models.CharField(blank=True, default="", max_length=500),
        ),
        migrations.AddField(
            model_name="lease",
            name="ticked_at",
            field=models.DateTimeField(null=True),
        ),
    ]
