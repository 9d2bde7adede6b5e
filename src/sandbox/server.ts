import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { chatDialect } from './chat-dialect.ts'
import { parseConfig } from './config.ts'
import type { SandboxContext } from './context.ts'
import { answerControl } from './control.ts'
import { defaultConfig } from './default-config.ts'
import type { Dialect } from './dialect.ts'
import { embeddingsDialect } from './embeddings-dialect.ts'
import { unknownGeneration, unknownUrl, wrongKey } from './errors.ts'
import { FaultBook } from './faults.ts'
import { describeGeneration } from './generation.ts'
import { HoldBook } from './holds.ts'
import { headerOf, sendJson } from './http.ts'
import { DEFAULT_KEEP, RequestLog } from './log.ts'
import { messagesDialect } from './messages-dialect.ts'
import { describeModels } from './models.ts'
import { PrefixCache } from './prompt.ts'
import { keyNameOf, sendError, serveModel } from './serve.ts'

export interface SandboxOptions {
  /** 0, the default, takes a free port. */
  readonly port?: number
  /** API keys by name; by default one, `sandbox-key`. */
  readonly keys?: Readonly<Record<string, string>>
  /** By default `control`. */
  readonly controlKey?: string
  /** Keeps the log across restarts. */
  readonly logFile?: string
  /** Requests kept one by one in memory; older ones are sums. */
  readonly logKeep?: number
  /** In the shape of `default-config.ts`. */
  readonly config?: unknown
}

export interface Sandbox {
  /** The base URL for an OpenAI client: `http://127.0.0.1:<port>/v1`. */
  readonly url: string
  /** `http://127.0.0.1:<port>/_control`. */
  readonly controlUrl: string
  /** Breaks open requests off, as they are when a process ends. */
  readonly close: () => Promise<void>
}

const HOST = '127.0.0.1'
/** Thousands may connect at once. */
const BACKLOG = 4096
/** Longer than clients keep idle connections: one that is closed as a request comes in looks like a fault. */
const KEEP_ALIVE_MS = 120_000

const dialects: ReadonlyMap<string, Dialect> = new Map([
  ['POST /v1/chat/completions', chatDialect],
  ['POST /v1/messages', messagesDialect],
  ['POST /v1/embeddings', embeddingsDialect],
])

/** Starts the provider on the loopback interface. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const { models, currency } = parseConfig(options.config ?? defaultConfig)
  const context: SandboxContext = {
    currency,
    models,
    settings: new Map(),
    keys: new Map(Object.entries(options.keys ?? { default: 'sandbox-key' })),
    log: await RequestLog.open({ file: options.logFile ?? null, keep: options.logKeep ?? DEFAULT_KEEP }),
    faults: new FaultBook(new Map([...models].map(([name, model]) => [name, model.faults]))),
    holds: new HoldBook(),
    cache: new PrefixCache(),
    generations: { delayMs: 0 },
  }
  const controlKey = options.controlKey ?? 'control'
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (req, res) => {
    route(context, { req, res, controlKey }).catch((error: unknown) => {
      console.error('sandbox: a request failed', error)
      if (res.headersSent) res.destroy()
      else sendJson(res, 500, { error: { message: String(error), type: 'server_error', code: null, param: null } })
    })
  })
  const port = await listen(server, options.port ?? 0)
  const origin = `http://${HOST}:${port}`
  let stopping: Promise<void> | null = null
  const stop = async (): Promise<void> => {
    await close(server)
    // Requests that were broken off settle now.
    await nextTurn()
    context.log.close()
  }
  return { url: `${origin}/v1`, controlUrl: `${origin}/_control`, close: () => (stopping ??= stop()) }
}

async function route(
  context: SandboxContext,
  {
    req,
    res,
    controlKey,
  }: { readonly req: IncomingMessage; readonly res: ServerResponse; readonly controlKey: string },
): Promise<void> {
  // OpenRouter has the same paths below /api.
  const target = (req.url ?? '/').replace(/^\/api(?=\/v1\/)/u, '')
  const dialect = dialects.get(`${req.method} ${target.split('?', 1)[0]}`)
  if (dialect !== undefined) return serveModel(context, dialect, { req, res })
  const url = new URL(target, `http://${HOST}`)
  if (url.pathname.startsWith('/_control/')) {
    if (headerOf(req, 'x-sandbox-control') === controlKey) return answerControl(context, { req, res, url })
    return sendJson(res, 401, { error: 'the header x-sandbox-control is missing or wrong' })
  }
  answerQuestion(context, { req, res, url })
}

/** Answers what clients ask beside their requests to models. */
function answerQuestion(
  context: SandboxContext,
  { req, res, url }: { readonly req: IncomingMessage; readonly res: ServerResponse; readonly url: URL },
): void {
  if (keyNameOf(context, req) === null) {
    sendError(res, chatDialect, wrongKey)
    return
  }
  switch (`${req.method} ${url.pathname}`) {
    case 'GET /v1/models':
      sendJson(res, 200, describeModels(context))
      return
    case 'GET /v1/generation': {
      const id = url.searchParams.get('id') ?? ''
      const known = describeGeneration(context, id)
      if (known === null) sendError(res, chatDialect, unknownGeneration(id))
      else res.writeHead(200, { 'content-type': 'application/json' }).end(known)
      return
    }
    default:
      sendError(res, chatDialect, unknownUrl(req.method ?? '', url.pathname))
  }
}

async function listen(server: Server, port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen({ port, host: HOST, backlog: BACKLOG }, resolve)
  await promise
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the sandbox has no TCP address')
  return address.port
}

async function close(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  server.close(() => resolve())
  server.closeAllConnections()
  await promise
}
