import { loadConfig, type Config } from '#src/config.ts'
import { startWorker, tuningOf, type RunningWorker } from '#src/worker.ts'
import { invariant } from '#domain/invariant.ts'
import { DefaultLogger, NativeConnection, Runtime, Worker } from '@temporalio/worker'
import { fileURLToPath } from 'node:url'
import * as benchAgents from './agents/index.ts'
import { UPSTREAM_MODEL } from './calls-load.ts'
import { ROUTE } from './ledger-tenant.ts'
import { bareActivities } from './runs-bare.ts'

/** A worker process of the bench: ours as it is everywhere, or one that differs in its activities alone. */
const AGENTS = fileURLToPath(new URL('agents/index.ts', import.meta.url))

Runtime.install({ logger: new DefaultLogger('WARN') })
const config = loadConfig(process.env)
const { ended } = await (process.env['BENCH_WORKER'] === 'bare' ? startBare(config) : startOurs(config))
process.stdout.write(`${JSON.stringify({ ready: { pid: process.pid } })}\n`)
await ended

function startOurs(settings: Config): Promise<RunningWorker> {
  const agents = Object.values(benchAgents).map((agent) => agent.manifest)
  return startWorker(settings, { workflowsPath: AGENTS, agents })
}

async function startBare(settings: Config): Promise<Pick<RunningWorker, 'ended'>> {
  const { address, namespace, taskQueue } = settings.temporal
  const [provider] = settings.providers
  invariant(provider, 'the bench names a provider')
  const connection = await NativeConnection.connect({ address })
  const worker = await Worker.create({
    connection,
    namespace,
    taskQueue,
    workflowsPath: AGENTS,
    activities: bareActivities(
      { url: provider.baseUrl, apiKey: provider.apiKey },
      { name: ROUTE.name, upstreamModel: UPSTREAM_MODEL },
    ),
    ...tuningOf(settings),
  })
  const runToEnd = async (): Promise<void> => {
    try {
      await worker.run()
    } finally {
      await connection.close()
    }
  }
  return { ended: runToEnd() }
}
