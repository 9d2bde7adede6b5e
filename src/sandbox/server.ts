import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { ChatContext } from './chat.ts'
import { answerChat } from './chat.ts'
import { parseConfig } from './config.ts'
import { answerControl } from './control.ts'
import { defaultConfig } from './default-config.ts'
import { FaultBook } from './faults.ts'
import { HoldBook } from './holds.ts'
import { RequestLog } from './log.ts'
import { headerOf, sendError, sendJson, unknownUrl, wrongKey } from './wire.ts'

export interface SandboxOptions {
  /** 0, the default, takes a free port. */
  readonly port?: number
  /** API keys by name; by default one, `sandbox-key`. */
  readonly keys?: Readonly<Record<string, string>>
  /** By default `control`. */
  readonly controlKey?: string
  /** Keeps the log across restarts. */
  readonly logFile?: string
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
/** When the configured models are said to have been created: models never change here. */
const MODELS_CREATED = 1_700_000_000

/** Starts the provider on the loopback interface. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const { models } = parseConfig(options.config ?? defaultConfig)
  const context: ChatContext = {
    models,
    keys: new Map(Object.entries(options.keys ?? { default: 'sandbox-key' })),
    log: new RequestLog(options.logFile ?? null),
    faults: new FaultBook(new Map([...models].map(([name, model]) => [name, model.faults]))),
    holds: new HoldBook(),
  }
  const controlKey = options.controlKey ?? 'control'
  const server = createServer((req, res) => {
    route(context, { req, res, controlKey }).catch((error: unknown) => {
      console.error('sandbox: a request failed', error)
      if (res.headersSent) res.destroy()
      else sendError(res, { status: 500, message: String(error), type: 'server_error', code: null, param: null })
    })
  })
  const port = await listen(server, options.port ?? 0)
  const origin = `http://${HOST}:${port}`
  return { url: `${origin}/v1`, controlUrl: `${origin}/_control`, close: () => close(server) }
}

async function route(
  context: ChatContext,
  {
    req,
    res,
    controlKey,
  }: { readonly req: IncomingMessage; readonly res: ServerResponse; readonly controlKey: string },
): Promise<void> {
  const url = new URL(req.url ?? '/', `http://${HOST}`)
  const call = `${req.method} ${url.pathname}`
  if (url.pathname.startsWith('/_control/')) {
    if (headerOf(req, 'x-sandbox-control') === controlKey) return answerControl(context, { req, res, url })
    return sendJson(res, 401, { error: 'the header x-sandbox-control is missing or wrong' })
  }
  if (call === 'POST /v1/chat/completions') return answerChat(context, req, res)
  const key = /^Bearer\s+(\S+)$/u.exec(headerOf(req, 'authorization') ?? '')?.[1]
  if (![...context.keys.values()].some((value) => value === key)) return sendError(res, wrongKey)
  if (call === 'GET /v1/models') return sendJson(res, 200, modelList(context))
  return sendError(res, unknownUrl(req.method ?? '', url.pathname))
}

function modelList(context: ChatContext): object {
  const data = [...context.models.keys()].map((id) => ({
    id,
    object: 'model',
    created: MODELS_CREATED,
    owned_by: 'sandbox',
  }))
  return { object: 'list', data }
}

async function listen(server: Server, port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.listen(port, HOST, resolve)
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
