import { type Child, type ExitStatus, spawnChild } from './child-process.ts'
import { findFreePorts } from './free-port.ts'
import { withProgress } from './progress.ts'
import { waitUntilServing } from './temporal-health.ts'
import { findTemporalProgram, type FindOptions } from './temporal-program.ts'

export interface TemporalOptions extends FindOptions {
  readonly logFile: string
  /** Keeps the workflows in this file; without it they live in memory and end with the server. */
  readonly dbFile?: string
  /** A loopback port; a free one when left out. Give the old one to start again where clients look for it. */
  readonly port?: number
  /** Where the UI is served, if that port is free; else on a free one. */
  readonly uiPort?: number
}

export interface Temporal {
  /** `host:port` of the gRPC service. */
  readonly address: string
  /** Unknown for a server that was not started here. */
  readonly uiUrl: string | undefined
  readonly pid: number | undefined
  /** Never settles for a server that was not started here. */
  readonly exited: Promise<ExitStatus>
  stop(): Promise<void>
  kill(): Promise<void>
}

const START_TIMEOUT_MS = 60_000
/** Its inner services take free ports of their own, which another process may win. */
const START_ATTEMPTS = 3

/** Makes sure that a Temporal server can be started: the part that may take minutes, the first time on a machine. */
export async function ensureTemporal(options: FindOptions): Promise<void> {
  if (!options.env['TEMPORAL_ADDRESS']) await findTemporalProgram(options)
}

/** Starts a Temporal dev server and waits until it serves; with `TEMPORAL_ADDRESS` set it waits for that one. */
export async function startTemporal(options: TemporalOptions): Promise<Temporal> {
  const given = options.env['TEMPORAL_ADDRESS']
  if (given) return useServer(given)
  const program = await findTemporalProgram(options)
  return withProgress('Starting Temporal', async () => {
    for (let attempt = 1; ; attempt += 1) {
      const [freePort, freeUiPort, httpPort, metricsPort] = await findFreePorts(4)
      const port = options.port ?? freePort
      const uiPort = (attempt === 1 ? options.uiPort : undefined) ?? freeUiPort
      const address = `127.0.0.1:${port}`
      const child = await spawnChild({
        command: program,
        args: [
          ...'server start-dev --ip 127.0.0.1 --log-level error --color never'.split(' '),
          ...`--port ${port} --ui-port ${uiPort} --http-port ${httpPort} --metrics-port ${metricsPort}`.split(' '),
          ...(options.dbFile === undefined ? [] : ['--db-filename', options.dbFile]),
        ],
        env: withoutSettings(options.env),
        logFile: options.logFile,
      })
      if (await waitUntilServing({ address, timeoutMs: START_TIMEOUT_MS, hasEnded: () => child.hasExited() })) {
        return describeTemporal(child, address, `http://127.0.0.1:${uiPort}`)
      }
      const log = (await child.readLog()).trimEnd().slice(-2_000)
      await child.stop()
      if (attempt === START_ATTEMPTS) throw new Error(`The Temporal server did not start. Its last lines:\n${log}`)
    }
  })
}

async function useServer(address: string): Promise<Temporal> {
  const serves = await withProgress(`Waiting for Temporal at ${address}`, () =>
    waitUntilServing({ address, timeoutMs: START_TIMEOUT_MS, hasEnded: () => false }),
  )
  if (!serves) throw new Error(`No Temporal server answers at ${address}: check TEMPORAL_ADDRESS.`)
  return {
    address,
    uiUrl: undefined,
    pid: undefined,
    exited: new Promise(() => undefined),
    stop: async () => undefined,
    kill: async () => {
      throw new Error(`The Temporal server at ${address} was not started here.`)
    },
  }
}

/** A server that runs as a child of this process. */
export function describeTemporal(child: Child, address: string, uiUrl: string | undefined): Temporal {
  return {
    address,
    uiUrl,
    pid: child.pid,
    exited: child.exited,
    stop: () => child.stop(),
    kill: async () => {
      child.kill('SIGKILL')
      await child.exited
    },
  }
}

/** The programs read `TEMPORAL_*` settings and a configuration file that are meant for clients. */
export function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = Object.entries(env).filter(([name]) => !name.startsWith('TEMPORAL_'))
  return { ...Object.fromEntries(own), TEMPORAL_CONFIG_FILE: '/dev/null' }
}
