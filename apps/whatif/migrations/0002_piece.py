import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('whatif', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Piece',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ('status', models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='queued', max_length=16)),
                ('created_by', models.CharField(max_length=150)),
                ('created_at', models.DateTimeField()),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('heartbeat_at', models.DateTimeField(null=True)),
                ('cancel_requested', models.BooleanField(default=False)),
                ('progress', models.FloatField(default=0.0)),
                ('eta_seconds', models.FloatField(null=True)),
                ('stage', models.CharField(blank=True, max_length=64)),
                ('error', models.CharField(blank=True, max_length=500)),
                ('index', models.PositiveIntegerField()),
                ('outcome', models.JSONField(null=True)),
                ('whatif', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='pieces', to='whatif.whatif')),
            ],
            options={
                'indexes': [models.Index(fields=['status', 'heartbeat_at'], name='whatif_piece_open')],
                'constraints': [models.UniqueConstraint(fields=('whatif', 'index'), name='whatif_piece_once')],
            },
        ),
    ]
