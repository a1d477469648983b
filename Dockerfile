# syntax=docker/dockerfile:1
# docker build -t bids_inpaint .                                  the app
# docker build -t bids_inpaint:gpu --build-arg ONNXRUNTIME=onnxruntime-gpu .
# docker build -t bids_inpaint:spm --target app-spm --build-arg SPM_URL=… --build-arg MCR_URL=… .
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG ONNXRUNTIME=onnxruntime
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/bids_inpaint
COPY docker/requirements.txt /src/docker/
# docopt has no wheel; nothing else is built
RUN /opt/bids_inpaint/bin/pip install --require-hashes --only-binary :all: --no-binary docopt \
      -r /src/docker/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY bids_inpaint /src/bids_inpaint
COPY workflows /src/workflows
RUN /opt/bids_inpaint/bin/pip install --no-deps /src \
    && if [ "$ONNXRUNTIME" != onnxruntime ]; then \
         version=$(/opt/bids_inpaint/bin/python -c 'import onnxruntime; print(onnxruntime.__version__)') \
         && /opt/bids_inpaint/bin/pip uninstall -y onnxruntime \
         && /opt/bids_inpaint/bin/pip install "$ONNXRUNTIME[cuda,cudnn]==$version"; \
       fi \
    && cd /opt/bids_inpaint/lib/python3.11/site-packages \
    && find . -type d \( -name tests -o -name test \) -prune -exec rm -r {} + \
    && /opt/bids_inpaint/bin/pip uninstall -y pip setuptools
# what the image consists of (CycloneDX): the app's packages and Debian's
RUN python3 -m venv /opt/sbom && /opt/sbom/bin/pip install cyclonedx-bom==7.5.0 debsbom==0.10.2 \
    && mkdir /opt/bids_inpaint/sbom \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject /src/pyproject.toml \
         -o /opt/bids_inpaint/sbom/python.cdx.json /opt/bids_inpaint \
    && /opt/sbom/bin/debsbom generate --root / -t cdx -o /opt/bids_inpaint/sbom/debian

FROM ${BASE} AS app
COPY --from=build /opt/bids_inpaint /opt/bids_inpaint
# mount points: a read-only root can't make them
RUN mkdir -p /bids /out /work /data /scratch /opt/templateflow && chmod 1777 /out /work /scratch
ENV PATH=/opt/bids_inpaint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONUNBUFFERED=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
WORKDIR /work
ENTRYPOINT ["bids_inpaint"]
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bids_inpaint" \
      org.opencontainers.image.description="Make brain MRI with lesions usable by tools made for healthy brains" \
      org.opencontainers.image.source="https://github.com/bids-inpaint/bids_inpaint" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

FROM app AS test
COPY tests /src/tests
COPY docs /src/docs
COPY pyproject.toml /src/
RUN python3 -m venv --system-site-packages /opt/test \
    && echo /opt/bids_inpaint/lib/python3.11/site-packages > /opt/test/lib/python3.11/site-packages/app.pth \
    && /opt/test/bin/python -m pip install --no-cache-dir 'psutil>=6,<8' 'pytest>=8.3,<10'
WORKDIR /src
ENTRYPOINT ["/opt/test/bin/python", "-m", "pytest", "-p", "no:cacheprovider"]

# SPM12 r7771 as a standalone program, with the MATLAB Runtime R2019b it was compiled for
FROM ${BASE} AS spm
ARG SPM_URL=https://www.fil.ion.ucl.ac.uk/spm/download/restricted/bids/spm12_r7771_Linux_R2019b.zip
# checked if they are given
ARG SPM_SHA256=
ARG MCR_SHA256=
ARG MCR_URL=https://ssd.mathworks.com/supportfiles/downloads/R2019b/Release/9/deployment_files/installer/complete/glnxa64/MATLAB_Runtime_R2019b_Update_9_glnxa64.zip
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl unzip libxext6 libxt6 libxmu6
RUN curl -fsSL -o /tmp/mcr.zip "$MCR_URL" \
    && { [ -z "$MCR_SHA256" ] || echo "$MCR_SHA256  /tmp/mcr.zip" | sha256sum -c; } && unzip -q /tmp/mcr.zip -d /tmp/mcr \
    && /tmp/mcr/install -destinationFolder /opt/mcr -mode silent -agreeToLicense yes \
    && rm -r /tmp/mcr /tmp/mcr.zip
RUN curl -fsSL -o /tmp/spm.zip "$SPM_URL" \
    && { [ -z "$SPM_SHA256" ] || echo "$SPM_SHA256  /tmp/spm.zip" | sha256sum -c; } \
    && unzip -q /tmp/spm.zip -d /opt && rm /tmp/spm.zip && chmod a+x /opt/spm12/spm12 /opt/spm12/run_spm12.sh
# the first run unpacks its code beside it, which a read-only root would not allow
RUN { /opt/spm12/run_spm12.sh /opt/mcr/v97 quit || true; } && test -d /opt/spm12/spm12_mcr \
    && chmod -R a+rX /opt/spm12

FROM app AS app-spm
RUN apt-get update && apt-get install -y --no-install-recommends libxext6 libxt6 libxmu6 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=spm /opt/mcr /opt/mcr
COPY --from=spm /opt/spm12 /opt/spm12
# run_spm12.sh sets the library path of the MATLAB Runtime for itself alone
ENV SPMMCRCMD="/opt/spm12/run_spm12.sh /opt/mcr/v97 script" \
    SPM_HTML_BROWSER=0 \
    # nobody can lock what lies on a read-only root
    MCR_INHIBIT_CTF_LOCK=1

# what 'docker build .' makes
FROM app
