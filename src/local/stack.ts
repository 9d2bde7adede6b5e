import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheFolder, dataFolder, makeFolder } from './cache.ts'
import type { RunningProcess } from './child-process.ts'
import { Endings } from './endings.ts'
import { startPostgres } from './postgres.ts'
import { withProgress } from './progress.ts'
import { chooseProvider, type ProviderChoice } from './provider-choice.ts'
import { lockDataFolder, readOrMakeOperatorKey } from './stack-folder.ts'
import { prepareDatabase } from './stack-database.ts'
import { choosePorts, type StackPorts } from './stack-ports.ts'
import { stackProcesses } from './stack-processes.ts'
import { type RunningSandbox, startSandboxProcess } from './stack-sandbox.ts'
import { removeStackState, writeStackState } from './stack-state.ts'
import { type Cable, startCable } from './tcp-cable.ts'
import { ensureTemporal, startTemporal } from './temporal.ts'
import { Watch } from './watch.ts'

/** Everything a checkout needs to run, on loopback ports of this machine. */
export interface Stack {
  readonly dataDir: string
  readonly apiUrl: string
  readonly docsUrl: string
  /** Unknown when Temporal was not started here. */
  readonly temporalUiUrl: string | null
  /** As the application's role, which may do everything but change what was written. */
  readonly databaseUrl: string
  readonly operatorKey: string
  /** Whether this start made the operator key: the time to show it. */
  readonly isOperatorKeyNew: boolean
  readonly provider: ProviderChoice
  /** Absent when a real provider is used. */
  readonly sandbox: RunningSandbox | undefined
  /** What the workers' connections to Temporal run through. */
  readonly cable: Cable
  /** The worker that was started with the stack. */
  readonly worker: RunningProcess
  startWorker(): Promise<RunningProcess>
  /** Says so when a process of the stack ends that was not stopped with it. */
  readonly unexpectedEnd: Promise<string>
  /** Ends everything, workers first. */
  stop(): Promise<void>
}

const CHECKOUT = fileURLToPath(new URL('../../', import.meta.url))

/**
 * Brings up Postgres, Temporal, the sandbox provider, the API and a worker. What they store stays in the data folder;
 * whatever happens to this process, they end with it.
 *
 * @throws one sentence when another stack has the data folder, or a provider's key is set without prices
 */
export async function startStack(env: NodeJS.ProcessEnv): Promise<Stack> {
  const provider = chooseProvider(env)
  const dataDir = dataFolder(env, CHECKOUT)
  await makeFolder(join(dataDir, 'logs'))
  const endings = new Endings()
  try {
    endings.add(await lockDataFolder(dataDir))
    return await startParts({ env, dataDir, provider, endings, watch: new Watch() })
  } catch (error) {
    await endings.end()
    throw error
  }
}

interface Parts {
  readonly env: NodeJS.ProcessEnv
  readonly dataDir: string
  readonly provider: ProviderChoice
  readonly endings: Endings
  readonly watch: Watch
}

async function startParts(parts: Parts): Promise<Stack> {
  const { env, dataDir, provider, endings, watch } = parts
  const ports = await choosePorts(dataDir)
  const { postgres, temporal, sandbox } = await startServices(parts, ports)
  const { appUrl } = await withProgress('Preparing the database', () => prepareDatabase(postgres.adminUrl))
  const [targetHost = '127.0.0.1', targetPort] = temporal.address.split(':')
  const cable = await startCable({ targetHost, targetPort: Number(targetPort) })
  endings.add(() => cable.stop())
  const operator = await readOrMakeOperatorKey(dataDir)
  const processes = await stackProcesses({
    env,
    dataDir,
    provider,
    sandbox,
    databaseUrl: appUrl,
    temporalAddress: temporal.address,
    isTemporalOurs: temporal.uiUrl !== undefined,
    cableAddress: cable.address,
    operatorKey: operator.key,
    apiPort: ports.api,
    watch,
  })
  endings.add(processes.stop)
  const [{ url: apiUrl }, worker] = await withProgress('Starting the API and a worker', () =>
    Promise.all([processes.startServer(), processes.startWorker()]),
  )
  const links = { apiUrl, docsUrl: `${apiUrl}/api/docs`, temporalUiUrl: temporal.uiUrl ?? null }
  const access = { ...links, databaseUrl: appUrl, operatorKey: operator.key }
  endings.add(() => removeStackState(dataDir))
  await writeStackState(dataDir, { pid: process.pid, ...access })
  return {
    ...access,
    dataDir,
    provider,
    sandbox,
    cable,
    worker,
    isOperatorKeyNew: operator.isNew,
    startWorker: () => processes.startWorker(),
    unexpectedEnd: watch.unexpectedEnd,
    async stop() {
      watch.stop()
      await endings.end()
    },
  }
}

/** The three that need nothing of each other start at the same time; if one fails, the others are ended. */
async function startServices({ env, dataDir, provider, endings, watch }: Parts, ports: StackPorts) {
  const cacheDir = cacheFolder(env)
  const logFile = (name: string): string => join(dataDir, 'logs', `${name}.log`)
  await ensureTemporal({ env, cacheDir })
  const [postgres, temporal, sandbox] = await endings.addAll([
    startPostgres({ cacheDir, dataDir: join(dataDir, 'postgres'), logFile: logFile('postgres'), durable: true }),
    startTemporal({
      env,
      cacheDir,
      logFile: logFile('temporal'),
      dbFile: join(dataDir, 'temporal.db'),
      uiPort: ports.temporalUi,
    }),
    provider.kind === 'sandbox'
      ? startSandboxProcess({ env, dataDir, logFile: logFile('sandbox') })
      : Promise.resolve(undefined),
  ])
  for (const [name, service] of Object.entries({ postgres, temporal, sandbox }))
    if (service) watch.keep(name, service, logFile(name))
  return { postgres, temporal, sandbox }
}
