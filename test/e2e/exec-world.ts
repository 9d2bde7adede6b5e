import { USUAL_GATEWAY_LIMITS } from '#contracts/gateway-limits.ts'
import { startServer } from '#src/server.ts'
import { onTestFinished } from 'vitest'
import type { RunView } from '#contracts/api-run.ts'
import { PurserClient } from '#client/purser-client.ts'
import { makeSecret } from '#api/key-secret.ts'
import { makeKey } from '../support/world.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** API with its gateway, worker, Temporal and the sandbox provider, for commands that are processes of their own. */
export interface ExecWorld extends WorkflowWorld {
  readonly url: string
  /** What its project's key may ask. */
  readonly api: PurserClient
  /** What leads `purser` to this API. */
  readonly env: NodeJS.ProcessEnv
  /** The only run that there is, once there is one. */
  readonly theRun: () => Promise<RunView>
  /** The same when it is over. */
  readonly theEnd: () => Promise<RunView>
}

export async function createExecWorld(): Promise<ExecWorld> {
  const world = await createWorkflowWorld([])
  const { db, scope, database, sandbox, taskQueue, temporalAddress } = world
  await world.startWorker({ isBuiltIn: true })
  const server = await startServer({
    database: { url: database.appUrl, maxConnections: 8 },
    api: { host: '127.0.0.1', port: 0, operatorKey: undefined, trustedProxies: [] },
    catalogFile: undefined,
    proxy: undefined,
    approvalAbove: new Map(),
    stripeSecret: undefined,
    allowsPrivateWebhooks: false,
    gateway: USUAL_GATEWAY_LIMITS,
    providers: [{ name: 'sandbox', kind: 'openai', baseUrl: sandbox.url, apiKey: 'sandbox-key' }],
    temporal: { address: temporalAddress, namespace: 'default', taskQueue },
    lostCost: 'maximum',
    retention: { refusalsDays: 0, idempotencyDays: 0, instancesDays: 0 },
    worker: { drainTimeoutMs: 1_000 },
    seals: { keyFile: undefined, anchorFile: undefined },
    secretsKeyFile: undefined,
  })
  onTestFinished(() => server.stop())
  const key = makeSecret('pk')
  await makeKey(db, scope, key)
  const api = new PurserClient(server.url, key)
  const runIds = async () => (await db.selectFrom('run').select('id').execute()).map(({ id }) => id)
  const theRun = async (): Promise<RunView> => {
    const id = await pollUntil(async () => (await runIds())[0], {
      what: 'there is a run',
    })
    return api.get('/runs/{id}', { params: { path: { id } } })
  }
  return {
    ...world,
    url: server.url,
    api,
    env: { PURSER_URL: server.url, PURSER_KEY: key },
    theRun,
    theEnd: () =>
      pollUntil(async () => ((run) => run.finishedAt !== null && run)(await theRun()), {
        what: 'the run is over',
        deadlineMs: 30_000,
      }),
  }
}
