import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseSettings } from './config.ts'
import { type SandboxContext, settingsOf } from './context.ts'
import { parseFaultRules } from './fault-rules.ts'
import { parseHoldOrder } from './holds.ts'
import { readBody, sendJson } from './http.ts'
import { invoiceLines } from './invoice.ts'
import { isRecord, parseJson } from './json.ts'
import type { Counts } from './tally.ts'

interface ControlCall {
  readonly context: SandboxContext
  readonly res: ServerResponse
  readonly url: URL
  /** What the path holds in place of `:name`. */
  readonly name: string
  readonly body: unknown
}

type ControlHandler = (call: ControlCall) => void | Promise<void>

/** `METHOD /path/:name` below `/_control`. */
const handlers: ReadonlyMap<string, ControlHandler> = new Map<string, ControlHandler>([
  ['PUT /faults/:name', setFaults],
  ['DELETE /faults/:name', clearFaults],
  ['GET /settings/:name', ({ context, res, name }) => sendJson(res, 200, settingsOf(context, modelOf(context, name)))],
  ['PUT /settings/:name', setSettings],
  ['PUT /generations', setGenerationDelay],
  ['POST /holds', armHold],
  ['GET /holds', ({ context, res }) => sendJson(res, 200, context.holds.list())],
  ['POST /holds/:name/release', releaseHold],
  ['GET /log', sendLog],
  ['DELETE /log', resetLog],
  ['GET /bill', ({ context, res }) => sendJson(res, 200, context.log.bill(context.currency))],
  ['GET /invoice.csv', sendInvoice],
  ['GET /counters', sendCounters],
  ['GET /memory', ({ res }) => sendJson(res, 200, { rssBytes: process.memoryUsage.rss() })],
])

const COUNTS = ['requests', 'begun', 'finished', 'aborted', 'ended'] as const satisfies readonly (keyof Counts)[]
const LONGEST_WAIT_MS = 60_000
const WAIT_STEP_MS = 10

/** A mistake of the caller's, and what it is answered with. */
class Refused extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** Answers `/_control/…`: faults, holds, the log and the bill, for tests and demonstrations. */
export async function answerControl(
  context: SandboxContext,
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
    await handler({ context, res, url, name: decodeURIComponent(name), body: parsed.value })
  } catch (error) {
    // A path that is no URI is a mistake of the caller's as well.
    if (!(error instanceof TypeError || error instanceof URIError || error instanceof Refused)) throw error
    sendJson(res, error instanceof Refused ? error.status : 400, { error: error.message })
  }
}

function modelOf(context: SandboxContext, name: string) {
  const model = context.models.get(name)
  if (model === undefined) throw new Refused(404, `no such model: ${name}`)
  return model
}

function setFaults({ context, res, name, body }: ControlCall): void {
  modelOf(context, name)
  const rules = parseFaultRules(body)
  context.faults.set(name, rules)
  sendJson(res, 200, { model: name, rules })
}

function clearFaults({ context, res, name }: ControlCall): void {
  context.faults.clear(name)
  res.writeHead(204).end()
}

/** What the body leaves out is as configured. */
function setSettings({ context, res, name, body }: ControlCall): void {
  const settings = parseSettings(body, modelOf(context, name).settings)
  context.settings.set(name, settings)
  sendJson(res, 200, settings)
}

function setGenerationDelay({ context, res, body }: ControlCall): void {
  const delayMs = isRecord(body) ? body['delayMs'] : null
  if (typeof delayMs !== 'number' || !(delayMs >= 0)) throw new TypeError('delayMs must be a number of at least 0')
  context.generations.delayMs = delayMs
  sendJson(res, 200, { delayMs })
}

function armHold({ context, res, body }: ControlCall): void {
  sendJson(res, 201, context.holds.arm(parseHoldOrder(body)))
}

function releaseHold({ context, res, name }: ControlCall): void {
  const hold = context.holds.release(name)
  sendJson(res, hold === null ? 404 : 200, hold ?? { error: `no such hold: ${name}` })
}

function sendLog({ context, res, url }: ControlCall): void {
  sendJson(res, 200, context.log.since(countOf(url, 'since') ?? 0))
}

function resetLog({ context, res }: ControlCall): void {
  context.log.reset()
  res.writeHead(204).end()
}

async function sendInvoice({ context, res }: ControlCall): Promise<void> {
  const requests = context.log.billable()
  if (requests === null) {
    throw new Refused(
      409,
      'not all requests are in memory any more: give it a SANDBOX_LOG_FILE or a larger SANDBOX_LOG_KEEP',
    )
  }
  res.writeHead(200, { 'content-type': 'text/csv; charset=utf-8' })
  await pipeline(Readable.from(invoiceLines(requests, context.currency)), res)
}

/** With `?begun=3&waitMs=5000` it waits until so many have begun, of one `model` if asked; 408 when they do not come. */
async function sendCounters({ context, res, url }: ControlCall): Promise<void> {
  const model = url.searchParams.get('model')
  const wanted = COUNTS.flatMap((name) => {
    const count = countOf(url, name)
    return count === null ? [] : [{ name, count }]
  })
  const deadlineMs = performance.now() + Math.min(countOf(url, 'waitMs') ?? 0, LONGEST_WAIT_MS)
  for (;;) {
    const counters = context.log.counters()
    const counts = model === null ? counters : counters.byModel.find((each) => each.model === model)
    if (wanted.every(({ name, count }) => (counts?.[name] ?? 0) >= count)) return sendJson(res, 200, counters)
    if (performance.now() > deadlineMs || res.destroyed)
      return sendJson(res, 408, { error: 'not so many yet', counters })
    await delay(WAIT_STEP_MS)
  }
}

function countOf(url: URL, name: string): number | null {
  const text = url.searchParams.get(name)
  if (text === null) return null
  if (!/^\d{1,15}$/u.test(text)) throw new TypeError(`${name} must be a whole number`)
  return Number(text)
}
