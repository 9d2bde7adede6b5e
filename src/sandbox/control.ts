import type { IncomingMessage, ServerResponse } from 'node:http'
import type { ChatContext } from './chat.ts'
import { toBill } from './bill.ts'
import { parseFaultRules } from './faults.ts'
import { parseHoldOrder } from './holds.ts'
import { parseJson } from './json.ts'
import { readBody, sendJson } from './wire.ts'

interface ControlCall {
  readonly context: ChatContext
  readonly res: ServerResponse
  readonly url: URL
  /** What the path holds in place of `:name`. */
  readonly name: string
  readonly body: unknown
}

type ControlHandler = (call: ControlCall) => void

/** `METHOD /path/:name` below `/_control`. */
const handlers: ReadonlyMap<string, ControlHandler> = new Map<string, ControlHandler>([
  ['PUT /faults/:name', setFaults],
  ['DELETE /faults/:name', clearFaults],
  ['POST /holds', armHold],
  ['GET /holds', ({ context, res }) => sendJson(res, 200, context.holds.list())],
  ['POST /holds/:name/release', releaseHold],
  ['GET /log', sendLog],
  ['GET /bill', ({ context, res }) => sendJson(res, 200, toBill(context.log.since(0)))],
])

/** Answers `/_control/…`: faults, holds, the log and the bill, for tests and demonstrations. */
export async function answerControl(
  context: ChatContext,
  { req, res, url }: { readonly req: IncomingMessage; readonly res: ServerResponse; readonly url: URL },
): Promise<void> {
  const text = await readBody(req)
  const [, collection = '', name = '', ...rest] = url.pathname.slice('/_control'.length).split('/')
  const path = ['', collection, ...(name === '' ? [] : [':name']), ...rest].join('/')
  const handler = handlers.get(`${req.method} ${path}`)
  if (handler === undefined) {
    sendJson(res, 404, { error: `no such control: ${req.method} ${url.pathname}` })
    return
  }
  const parsed = text === null || text === '' ? { ok: true as const, value: {} } : parseJson(text)
  if (!parsed.ok) {
    sendJson(res, 400, { error: 'the body is not JSON' })
    return
  }
  try {
    handler({ context, res, url, name: decodeURIComponent(name), body: parsed.value })
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    sendJson(res, 400, { error: error.message })
  }
}

function setFaults({ context, res, name, body }: ControlCall): void {
  if (!context.models.has(name)) {
    sendJson(res, 404, { error: `no such model: ${name}` })
    return
  }
  const rules = parseFaultRules(body)
  context.faults.set(name, rules)
  sendJson(res, 200, { model: name, rules })
}

function clearFaults({ context, res, name }: ControlCall): void {
  context.faults.clear(name)
  res.writeHead(204).end()
}

function armHold({ context, res, body }: ControlCall): void {
  sendJson(res, 201, context.holds.arm(parseHoldOrder(body)))
}

function releaseHold({ context, res, name }: ControlCall): void {
  const hold = context.holds.release(name)
  sendJson(res, hold === null ? 404 : 200, hold ?? { error: `no such hold: ${name}` })
}

function sendLog({ context, res, url }: ControlCall): void {
  const since = Number(url.searchParams.get('since') ?? 0)
  if (!Number.isInteger(since)) throw new TypeError('since must be a sequence number')
  sendJson(res, 200, context.log.since(since))
}
