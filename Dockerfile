# The image docker-compose.yml runs: Quayside with the Debian packages its engine stands on.
FROM node:20-bookworm-slim AS front
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY script/vendor script/vendor
RUN script/vendor

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install -y --no-install-recommends runc crun conmon nftables libnftables1 iproute2 \
      aardvark-dns conntrack busybox-static golang-github-containers-common procps tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --uid 990 quayside
WORKDIR /opt/quayside
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
COPY --from=front /src/static/vendor static/vendor
ENV DJANGO_SETTINGS_MODULE=console.settings PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["python", "-m", "console.serve"]
