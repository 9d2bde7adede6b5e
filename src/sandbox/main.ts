import { parseJson } from './json.ts'
import { startSandbox } from './server.ts'

const PARENT_CHECK_MS = 500

const { SANDBOX_PORT, SANDBOX_KEY, SANDBOX_CONTROL_KEY, SANDBOX_LOG_FILE, SANDBOX_LOG_KEEP, SANDBOX_CONFIG } =
  process.env

const sandbox = await startSandbox({
  port: readPort(SANDBOX_PORT),
  ...(isGiven(SANDBOX_KEY) ? { keys: { default: SANDBOX_KEY } } : {}),
  ...(isGiven(SANDBOX_CONTROL_KEY) ? { controlKey: SANDBOX_CONTROL_KEY } : {}),
  ...(isGiven(SANDBOX_LOG_FILE) ? { logFile: SANDBOX_LOG_FILE } : {}),
  ...(isGiven(SANDBOX_LOG_KEEP) ? { logKeep: readKeep(SANDBOX_LOG_KEEP) } : {}),
  ...(isGiven(SANDBOX_CONFIG) ? { config: readConfig(SANDBOX_CONFIG) } : {}),
})

const stop = (): void => {
  void sandbox.close().finally(() => process.exit(0))
}
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, stop)
}

// A stack or test that is killed cannot end its provider: the system then gives the orphan another parent.
const parent = process.ppid
setInterval(() => {
  if (process.ppid !== parent) stop()
}, PARENT_CHECK_MS).unref()

const { url, controlUrl } = sandbox
process.stdout.write(`${JSON.stringify({ ready: { url, controlUrl } })}\n`)

function isGiven(value: string | undefined): value is string {
  return value !== undefined && value !== ''
}

function readPort(text: string | undefined): number {
  const port = isGiven(text) ? Number(text) : 0
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new TypeError('SANDBOX_PORT must be a port number, 0 for a free one')
  return port
}

function readKeep(text: string): number {
  if (!/^[1-9]\d{0,8}$/u.test(text)) throw new TypeError('SANDBOX_LOG_KEEP must be a number of requests, at least 1')
  return Number(text)
}

function readConfig(text: string): unknown {
  const parsed = parseJson(text)
  if (!parsed.ok) throw new TypeError('SANDBOX_CONFIG must be JSON')
  return parsed.value
}
