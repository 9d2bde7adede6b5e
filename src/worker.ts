import { createCallActivities } from '#activities/chat.ts'
import { createMapActivities } from '#activities/map.ts'
import { createRunActivities } from '#activities/run.ts'
import { createScheduleActivities } from '#activities/schedule.ts'
import { createToolActivities } from '#activities/tool.ts'
import { startSealer } from '#calls/sealer.ts'
import { openSecretsKeyFile } from '#calls/secrets-key-file.ts'
import { startEngine } from '#calls/start-engine.ts'
import { corpusStore } from '#db/corpus-search.ts'
import { connectDatabase } from '#db/database.ts'
import type { AgentManifest } from '#contracts/agents.ts'
import { connectionsBy } from '#providers/connections.ts'
import { createProvider } from '#providers/create-provider.ts'
import {
  DefaultLogger,
  NativeConnection,
  Runtime,
  Worker,
  type WorkerOptions as Tuning,
  type WorkflowBundle,
} from '@temporalio/worker'
import { fileURLToPath } from 'node:url'
import { manifests } from '../workflows/manifests.ts'
import { type Config, loadConfig } from './config.ts'

/** Calls wait for providers, not for this machine: the limit is what one process's connections and memory bear. */
const MAX_ACTIVITIES = 64
/**
 * A process that hangs keeps its open polls for a minute, and each swallows a task until that times out: few polls while
 * there is little to do, more with the load.
 */
const POLLERS = { type: 'autoscaling', initial: 1, minimum: 1, maximum: 20 } as const
/** A workflow whose worker was killed is offered to the others after so long; Temporal's own default is ten seconds. */
const STICKY_TIMEOUT_MS = 5_000
/** After the drain, aborted calls are settled and reported; beyond this the process ends as if it were killed. */
const SETTLE_TIMEOUT_MS = 10_000

/** Exports the built-in agents, each under its name. */
export const WORKFLOWS = fileURLToPath(new URL('../workflows/bundle.ts', import.meta.url))

/** Other agents than the built-in ones. */
interface WorkerOptions {
  /** A module that exports each agent under its name. */
  readonly workflowsPath?: string
  /** What such a module was made into before, for whoever starts many workers: making it takes seconds. */
  readonly workflowBundle?: WorkflowBundle
  readonly agents?: readonly AgentManifest[]
}

export interface RunningWorker {
  /** Resolves when the worker was told to stop and nothing is in flight. */
  readonly ended: Promise<void>
  /** Stops polling; finishes what is in flight within the drain timeout, then aborts it, to go on elsewhere. */
  shutdown(): void
}

/** Starts everything a worker process consists of. It polls when this returns. */
export async function startWorker(config: Config, options: WorkerOptions = {}): Promise<RunningWorker> {
  const { address, namespace, taskQueue } = config.temporal
  const db = connectDatabase(config.database)
  const nowMs = () => Date.now()
  const connections = connectionsBy(config.proxy)
  const providers = config.providers.map((provider) => createProvider(provider, { nowMs, connections }))
  const complain = (sentence: string) => void process.stderr.write(`${sentence}\n`)
  const secrets = await openSecretsKeyFile(config.secretsKeyFile)
  const engine = await startEngine({
    db,
    databaseUrl: config.database.url,
    kind: 'worker',
    providers,
    stored: { secrets, complain, connections },
    lostCost: config.lostCost,
    retention: config.retention,
  })
  const keyWatch = secrets?.watch(complain)
  const sealer = await startSealer({ db, settings: config.seals, complain })
  const connection = await NativeConnection.connect({ address })
  const worker: Worker = await Worker.create({
    connection,
    namespace,
    taskQueue,
    ...(options.workflowBundle
      ? { workflowBundle: options.workflowBundle }
      : { workflowsPath: options.workflowsPath ?? WORKFLOWS }),
    activities: {
      ...createCallActivities({ engine }),
      ...createMapActivities({ engine, isEnding: () => worker.getState() !== 'RUNNING' }),
      ...createToolActivities({ db, storeOf: (scope) => corpusStore(db, scope) }),
      ...createRunActivities({ engine, agents: options.agents ?? manifests }),
      ...createScheduleActivities({ db, nowMs }),
    },
    ...tuningOf(config),
  })
  const runToEnd = async (): Promise<void> => {
    try {
      await worker.run()
    } finally {
      await keyWatch?.stop()
      await sealer.stop()
      await engine.stop()
      await connection.close()
      await db.destroy()
    }
  }
  return {
    ended: runToEnd(),
    shutdown() {
      if (worker.getState() === 'RUNNING') worker.shutdown()
    },
  }
}

/** How a worker polls, what it bears at once, and how it ends: the same for whatever is measured beside it. */
export function tuningOf({ worker: { drainTimeoutMs } }: Pick<Config, 'worker'>) {
  return {
    maxConcurrentActivityTaskExecutions: MAX_ACTIVITIES,
    activityTaskPollerBehavior: POLLERS,
    workflowTaskPollerBehavior: POLLERS,
    stickyQueueScheduleToStartTimeout: STICKY_TIMEOUT_MS,
    shutdownGraceTime: drainTimeoutMs,
    shutdownForceTime: drainTimeoutMs + SETTLE_TIMEOUT_MS,
  } satisfies Partial<Tuning>
}

/** Runs a worker process. SIGTERM and SIGINT begin its shutdown: Temporal's runtime listens for them. */
export async function work(config: Config, options: WorkerOptions = {}): Promise<void> {
  Runtime.install({ logger: new DefaultLogger('WARN') })
  const { ended } = await startWorker(config, options)
  process.stdout.write(`${JSON.stringify({ ready: { pid: process.pid } })}\n`)
  await ended
}

if (import.meta.main) await work(loadConfig(process.env))
