import { checkCatalog } from '#contracts/catalog-check.ts'
import type { AgentManifest } from '#contracts/agents.ts'
import { isKey } from '#contracts/key-secret.ts'
import { buildApi } from '#api/api.ts'
import { startDispatcher } from '#api/dispatcher.ts'
import { startHistoryEraser } from '#api/history-eraser.ts'
import { connectionOptions, temporalOrchestrator } from '#api/orchestrator.ts'
import { startReconciler } from '#api/reconciler.ts'
import { makeSecret } from '#api/key-secret.ts'
import { temporalSchedules } from '#api/temporal-schedules.ts'
import { startWebhookSender } from '#api/webhook-sender.ts'
import { temporalCensus } from '#api/workflow-census.ts'
import { importCatalog } from '#db/catalog.ts'
import { connectDatabase } from '#db/database.ts'
import { bootstrapOrganisation } from '#db/organisation.ts'
import { keyHintOf } from '#db/provider.ts'
import type { Database } from '#db/schema.ts'
import { startSealer } from '#calls/sealer.ts'
import { openSecretsKeyFile } from '#calls/secrets-key-file.ts'
import { startEngine } from '#calls/start-engine.ts'
import { connectionsBy } from '#providers/connections.ts'
import { createProvider } from '#providers/create-provider.ts'
import { registerGateway } from './gateway/gateway.ts'
import { splitDocument } from '#tools/passages.ts'
import { Client, Connection } from '@temporalio/client'
import { readFile } from 'node:fs/promises'
import type { Kysely } from 'kysely'
import { manifests } from '../workflows/manifests.ts'
import { type Config, loadConfig } from './config.ts'

const ORGANISATION = 'default'

/** Other agents than the built-in ones, which a worker has as well. */
interface ServerOptions {
  readonly agents?: readonly AgentManifest[]
}

export interface RunningServer {
  readonly url: string
  /** The operator key that this start made: shown once. */
  readonly operatorKey: string | undefined
  stop(): Promise<void>
}

/** Starts everything an API process consists of. It listens when this returns. */
export async function startServer(config: Config, options: ServerOptions = {}): Promise<RunningServer> {
  refuseBadKey(config.api.operatorKey)
  const db = connectDatabase(config.database)
  const { address, namespace, taskQueue } = config.temporal
  const connection = Connection.lazy({ ...connectionOptions, address })
  const client = new Client({ connection, namespace })
  const orchestrator = temporalOrchestrator({ client, taskQueue })
  const clock = temporalSchedules({ client, taskQueue })
  const nowMs = () => Date.now()
  const secrets = await openSecretsKeyFile(config.secretsKeyFile)
  if (config.catalogFile !== undefined) await importCatalogFile(db, config.catalogFile)
  const app = await buildApi({
    ...configured(config),
    db,
    agents: options.agents ?? manifests,
    poke: () => dispatcher.poke(),
    isTemporalUp: () => orchestrator.isUp(),
    missedTimes: (scheduleId) => clock.missedOf(scheduleId),
    splitDocument,
    nowMs,
    secrets,
  })
  const complain = (sentence: string) => app.log.error(sentence)
  const connections = connectionsBy(config.proxy)
  const engine = await startEngine({
    db,
    databaseUrl: config.database.url,
    kind: 'api',
    providers: config.providers.map((provider) => createProvider(provider, { nowMs, connections })),
    stored: { secrets, complain, connections },
    lostCost: config.lostCost,
    retention: config.retention,
  })
  await registerGateway(app, { engine, drainTimeoutMs: config.worker.drainTimeoutMs, limits: config.gateway })
  const monotonicMs = () => performance.now()
  const dispatcher = startDispatcher({ db, orchestrator, clock, log: app.log, monotonicMs })
  const webhooks = startWebhookSender({
    db,
    log: app.log,
    nowMs,
    allowsPrivate: config.allowsPrivateWebhooks,
    secrets,
  })
  const census = temporalCensus({ client, taskQueue })
  const reconciler = startReconciler({ db, census, lostCost: config.lostCost, log: app.log, monotonicMs })
  const histories = startHistoryEraser({ db, client, log: app.log })
  const keyWatch = secrets?.watch(complain)
  const sealer = await startSealer({ db, settings: config.seals, complain })
  const url = await app.listen({ host: config.api.host, port: config.api.port })
  // Last, because a key that is made is shown once, in the line that says that all is well.
  const operatorKey = await bootstrapOrganisation(db, {
    name: ORGANISATION,
    nowMs: nowMs(),
    operatorKey: config.api.operatorKey,
    makeKey: () => makeSecret('op'),
  })
  return {
    url,
    operatorKey,
    async stop() {
      await app.close()
      for (const part of [keyWatch, dispatcher, reconciler, histories, webhooks, sealer, engine]) await part?.stop()
      await connection.close()
      await db.destroy()
    },
  }
}

/** What of the configuration the API is given as it is. Of providers it learns no key. */
function configured(config: Config) {
  return {
    trustedProxies: config.api.trustedProxies,
    failuresOfAddress: config.gateway.failuresOfAddress,
    lostCost: config.lostCost,
    approvalAbove: config.approvalAbove,
    stripeSecret: config.stripeSecret,
    allowsPrivateWebhooks: config.allowsPrivateWebhooks,
    fixedProviders: config.providers.map(({ apiKey, ...shown }) => ({ ...shown, keyHint: keyHintOf(apiKey) })),
    log: { level: 'warn', stream: process.stderr },
  } as const
}

async function importCatalogFile(db: Kysely<Database>, file: string): Promise<void> {
  const checked = checkCatalog(JSON.parse(await readFile(file, 'utf8')))
  if (!checked.ok) {
    const lines = checked.problems.map(({ path, message }) => `  ${path}: ${message}`)
    throw new Error(`The catalog ${file} is not valid:\n${lines.join('\n')}`)
  }
  await importCatalog(db, checked.catalog)
}

/** Runs an API process until it is told to stop: SIGTERM or SIGINT. */
export async function serve(config: Config, options: ServerOptions = {}): Promise<void> {
  const server = await startServer(config, options)
  const { url, operatorKey } = server
  process.stdout.write(`${JSON.stringify({ ready: { url, ...(operatorKey !== undefined && { operatorKey }) } })}\n`)
  const stopped = Promise.withResolvers<void>()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stopped.resolve())
  await stopped.promise
  await server.stop()
}

if (import.meta.main) await serve(loadConfig(process.env))

function refuseBadKey(operatorKey: string | undefined): void {
  if (operatorKey === undefined || isKey(operatorKey)) return
  throw new Error('PURSER_OPERATOR_KEY is not purser_op_ followed by 20 to 200 letters, digits, - or _.')
}
