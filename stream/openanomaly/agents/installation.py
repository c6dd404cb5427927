"""What the settings say of the broker and the topics of an installation, as the broker's floor takes it."""

import dataclasses

from openanomaly.broker.faust_app import BrokerConfig
from openanomaly.broker.topics import Topics, topics
from openanomaly.settings import BrokerSettings


def broker_config(settings: BrokerSettings) -> BrokerConfig:
    names = {field.name for field in dataclasses.fields(BrokerConfig)}
    values = {name: getattr(settings, name) for name in names}
    if settings.sasl_password is not None:
        values["sasl_password"] = settings.sasl_password.get_secret_value()
    return BrokerConfig(**values)


def topics_of(settings: BrokerSettings) -> Topics:
    return topics(
        settings.topic_prefix,
        settings.partitions,
        samples_retention_s=settings.samples_retention_s,
        scores_retention_s=settings.scores_retention_s,
        dead_letter_retention_s=settings.dead_letter_retention_s,
    )
