# The image of all Airflow services, for Astro (`astro dev start`, `astro deploy`) and for
# `docker compose` alike. Runtime 13.8.0 carries Airflow 2.11.2 on Python 3.12.
#
# `-base`, because the plain tag runs its own ONBUILD installation before anything below: it refuses a
# requirements.txt that pins apache-airflow and knows no constraints file.
FROM quay.io/astronomer/astro-runtime:13.8.0-base

SHELL ["/bin/bash", "-o", "pipefail", "-euc"]
# Where Astro mounts dags/, plugins/, include/ and tests/ in development.
WORKDIR /usr/local/airflow
# Code is imported as include.mltrading, by Airflow and by the processes its tasks start.
ENV PYTHONPATH=/usr/local/airflow

USER root
COPY packages.txt .
RUN apt-get update \
    && sed -e 's/#.*//' packages.txt | xargs apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/*

# The runtime ships older providers than ours. The constraints give the image the very versions the tests
# ran with; the runtime's Airflow (2.11.2 with Astronomer's local version) satisfies the pin and stays.
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir --root-user-action=ignore -r requirements.txt -c constraints.txt

USER astro
COPY --chown=astro:0 . .
# Named volumes mounted here take their owner from these folders.
RUN mkdir -p logs && mkdir -m 700 -p backups
