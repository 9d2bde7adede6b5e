import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { TASK_QUEUE } from '#contracts/names.ts'
import { type RunningProcess, startProcess } from './child-process.ts'
import type { ProviderChoice } from './provider-choice.ts'
import { ensureSealKey, ensureSecretsKey, sealFilesOf } from './stack-folder.ts'
import { isPortFree } from './stack-ports.ts'
import type { RunningSandbox } from './stack-sandbox.ts'
import { writePrivateFile } from './stack-state.ts'
import type { Watch } from './watch.ts'

export interface StackSettings {
  readonly env: NodeJS.ProcessEnv
  readonly dataDir: string
  readonly provider: ProviderChoice
  readonly sandbox: RunningSandbox | undefined
  readonly databaseUrl: string
  readonly temporalAddress: string
  readonly isTemporalOurs: boolean
  /** Leads to Temporal too; the workers' way. */
  readonly cableAddress: string
  readonly operatorKey: string
  readonly apiPort: number
  /** Is told of each process. */
  readonly watch: Watch
  /** Files to start in place of Purser's own. */
  readonly entries?: { readonly server: string; readonly worker: string }
}

/** The API's process, and where it listens. */
export interface RunningServer {
  readonly url: string
  readonly process: RunningProcess
}

/** Starts the API and workers of a stack, configured by their environment only. */
export interface StackProcesses {
  readonly startServer: () => Promise<RunningServer>
  /** Its name is that of its log as well. */
  readonly startWorker: (name?: string) => Promise<RunningProcess>
  /** Ends all of them at the same time, also those that are still starting. */
  readonly stop: () => Promise<void>
}

const SERVER = fileURLToPath(new URL('../server.ts', import.meta.url))
const WORKER = fileURLToPath(new URL('../worker.ts', import.meta.url))
/** A worker bundles the workflows when it starts, which takes seconds on a busy machine. */
const READY_TIMEOUT_MS = 90_000

export async function stackProcesses(settings: StackSettings): Promise<StackProcesses> {
  const { dataDir, provider, entries = { server: SERVER, worker: WORKER } } = settings
  const catalogFile = join(dataDir, 'catalog.json')
  await writePrivateFile(catalogFile, JSON.stringify(provider.catalog, undefined, 2))
  await ensureSealKey(dataDir)
  const shared = sharedEnvironment(settings, await ensureSecretsKey(dataDir))
  const starting = new Set<Promise<RunningProcess>>()
  const start = (name: string, entry: string, env: NodeJS.ProcessEnv): Promise<RunningProcess> => {
    const logFile = join(dataDir, 'logs', `${name}.log`)
    const started = startProcess({ name, entry, env, logFile, readyTimeoutMs: READY_TIMEOUT_MS })
    starting.add(started)
    // Who started it is told when it does not begin.
    void started.then((running) => settings.watch.keep(name, running, logFile)).catch(() => undefined)
    return started
  }
  return {
    async startServer() {
      const startAt = (port: number): Promise<RunningProcess> =>
        start('api', entries.server, {
          ...shared,
          PURSER_API_HOST: '127.0.0.1',
          PURSER_API_PORT: String(port),
          PURSER_OPERATOR_KEY: settings.operatorKey,
          PURSER_CATALOG: catalogFile,
          PURSER_WEBHOOKS_PRIVATE: 'true',
          TEMPORAL_ADDRESS: settings.temporalAddress,
        })
      const running = await startAt(settings.apiPort).catch(async (error: unknown) => {
        if (await isPortFree(settings.apiPort)) throw error
        return startAt(0) // another process was faster
      })
      const { ready } = running
      if (typeof ready !== 'object' || ready === null || !('url' in ready)) {
        throw new Error('The API process did not say where it listens.')
      }
      return { url: String(ready.url), process: running }
    },
    startWorker: (name = 'worker') =>
      start(name, entries.worker, { ...shared, TEMPORAL_ADDRESS: settings.cableAddress }),
    async stop() {
      const started = await Promise.allSettled(starting)
      await Promise.all(started.flatMap((each) => (each.status === 'fulfilled' ? [each.value.stop()] : [])))
    },
  }
}

function sharedEnvironment(settings: StackSettings, secretsKeyFile: string): NodeJS.ProcessEnv {
  const { env, dataDir, databaseUrl, isTemporalOurs } = settings
  const { keyFile, anchorFile } = sealFilesOf(dataDir)
  // Keys are in PURSER_PROVIDERS.
  const { OPENAI_API_KEY: _openai, ANTHROPIC_API_KEY: _anthropic, ...rest } = env
  return {
    ...rest,
    PURSER_DATABASE_URL: databaseUrl,
    PURSER_SEAL_KEY_FILE: keyFile,
    PURSER_SEAL_ANCHOR_FILE: anchorFile,
    PURSER_SECRETS_KEY_FILE: secretsKeyFile,
    PURSER_PROVIDERS: JSON.stringify([providerOf(settings)]),
    PURSER_TASK_QUEUE: env['PURSER_TASK_QUEUE'] ?? (isTemporalOurs ? TASK_QUEUE : ownQueue(dataDir)),
  }
}

function providerOf({ provider, sandbox }: StackSettings) {
  if (provider.kind !== 'sandbox') {
    const { kind, baseUrl, apiKey } = provider
    return { name: kind, kind, baseUrl, apiKey }
  }
  if (!sandbox) throw new Error('The stack has no provider.')
  return { name: 'sandbox', baseUrl: sandbox.url, apiKey: sandbox.apiKey }
}

/** On a Temporal that others use too, their workers must not take the runs of this data folder. */
function ownQueue(dataDir: string): string {
  return `${TASK_QUEUE}-${createHash('sha256').update(dataDir).digest('hex').slice(0, 12)}`
}
