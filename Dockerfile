# One image for the API, the workers and the migration: what it does is its command, how it does it is its environment.
FROM node:24-bookworm-slim
WORKDIR /app
COPY package.json package-lock.json ./
# No development tools; the optional packages hold the compiler that bundles workflows.
RUN npm ci --omit=dev --no-audit --no-fund && npm cache clean --force
COPY migrations ./migrations
COPY activities ./activities
COPY workflows ./workflows
COPY src ./src
# A volume that is mounted here takes its owner over: the anchor of the sealed blocks is written to it.
RUN mkdir --parents /var/lib/purser && chown node:node /var/lib/purser
USER node
CMD ["node", "src/server.ts"]
