import { executeCall } from '#calls/execute.ts'
import { startEngine, type RunningEngine } from '#calls/start-engine.ts'
import type { CallRequest } from '#calls/call.ts'
import { createProvider } from '#providers/create-provider.ts'
import { createServer, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { attemptsOf, reportOf } from '../support/fault-world.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { chunkOf, dataOf, DONE, listen } from '../support/upstream.ts'
import { createWorld, type TestRun, type World } from '../support/world.ts'

const STREAM = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n'
const BEGUN = dataOf(chunkOf({ content: 'In 17' }))
const ENDED = dataOf(chunkOf({ content: '11.' }, 'stop'))
const billOf = (input: number, output: number) =>
  dataOf(chunkOf({}, null, { choices: [], usage: { prompt_tokens: input, completion_tokens: output } }))
const WHOLE = BEGUN + ENDED + billOf(30, 4) + DONE

interface StrangeProvider {
  readonly url: string
  /** How often it was asked. */
  readonly asked: () => number
  readonly open: () => number
}

/** A provider on a bare socket: each whole request is answered by the script, the last of which stays. */
async function useStrangeProvider(...scripts: readonly ((socket: Socket) => void)[]): Promise<StrangeProvider> {
  const sockets = new Set<Socket>()
  let asked = 0
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
    let text = ''
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1')
      const head = text.indexOf('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)
      if (head === -1 || text.length < head + 4 + length) return
      text = text.slice(head + 4 + length)
      asked += 1
      scripts[Math.min(asked, scripts.length) - 1]?.(socket)
    })
  })
  const url = await listen(server)
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
  })
  return { url, asked: () => asked, open: () => sockets.size }
}

async function engineFor({ db, database }: World, { url }: StrangeProvider): Promise<RunningEngine> {
  const settings = { kind: 'openai', name: 'sandbox', baseUrl: url, apiKey: 'sandbox-key' } as const
  const providers = [createProvider(settings, { nowMs: () => Date.now() })]
  const engine = await startEngine({ db, databaseUrl: database.appUrl, kind: 'test', providers })
  onTestFinished(() => engine.stop())
  return engine
}

async function useStage(...scripts: readonly ((socket: Socket) => void)[]) {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const provider = await useStrangeProvider(...scripts)
  const engine = await engineFor(world, provider)
  const ask = (change: Partial<CallRequest> = {}) =>
    executeCall(engine, run.request('one', 'When did the mill of Orvane burn down?', change))
  return { world, run, provider, engine, ask }
}

/** Nothing is held, nothing is open, and the books are right. */
async function expectSettled(world: World, run: TestRun): Promise<void> {
  const held = await world.db.selectFrom('account').select('id').where('pending_debit', '>', 0n).execute()
  expect(held).toEqual([])
  const open = await world.db.selectFrom('attempt').select('number').where('state', '=', 'sent').execute()
  expect(open).toEqual([])
  expect((await reportOf(world, run)).calls).toHaveLength(1)
  await expectVerified(world)
}

const write = (text: string) => (socket: Socket) => void socket.write(text)
const end = (text: string) => (socket: Socket) => void socket.end(text)
const JSON_HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n'

test.each([
  [
    'JSON that breaks off with its connection',
    end(`${JSON_HEAD}\r\n{"id":"c","choices":[{"index":0,"mess`),
    'cut_stream',
  ],
  ['a stream that breaks off in its first event', end(`${STREAM}\r\n${BEGUN.slice(0, 30)}`), 'cut_stream'],
  ['a connection that is reset', (socket: Socket) => void socket.resetAndDestroy(), 'network_after_send'],
  ['headers without an end', write(`HTTP/1.1 200 OK\r\n${'x-more: 1\r\n'.repeat(9_000)}`), 'network_after_send'],
  ['chunks that are none', end(`${STREAM}transfer-encoding: chunked\r\n\r\nzz\r\n`), 'cut_stream'],
])('%s is paid for, once for each request, and repeated once', async (_, script, outcome) => {
  const { world, run, provider, ask } = await useStage(script)
  expect(await ask()).toMatchObject({ kind: 'failed', reason: 'repeat_not_allowed', outcome })
  expect(provider.asked()).toBe(2)
  const attempts = await attemptsOf(world, run)
  expect(attempts.map((each) => each.outcome)).toEqual([outcome, outcome])
  for (const { charged, held } of attempts) {
    expect(charged).toBeGreaterThan(0n)
    expect(charged).toBeLessThanOrEqual(held)
  }
  await expectSettled(world, run)
  await pollUntil(() => provider.open() === 0, { what: 'the closed connections' })
})

test('a stream that turns into garbage costs all that it may have said, and its route is left', async () => {
  const { world, run, provider, ask } = await useStage(end(`${STREAM}\r\n${BEGUN}data: {"half":\n\n${DONE}`))
  expect(await ask()).toMatchObject({ kind: 'failed', outcome: 'malformed_answer' })
  expect(provider.asked()).toBe(1)
  const [attempt] = await attemptsOf(world, run)
  expect(attempt).toMatchObject({ certainty: 'estimated', use: 'wasted' })
  expect(attempt?.charged).toBe(attempt?.held)
  await expectSettled(world, run)
})

test('the last bill counts, and what it has above the hold is an overage', async () => {
  const bills = billOf(30, 4) + billOf(90_000, 4)
  const { world, run, ask } = await useStage(end(`${STREAM}\r\n${BEGUN}${ENDED}${bills}${DONE}`))
  expect(await ask()).toMatchObject({ kind: 'answered', answer: { text: 'In 1711.' } })
  const report = await reportOf(world, run)
  // 0.40 and 1.60 USD for a million tokens.
  expect(report.calls[0]?.attempts[0]).toMatchObject({ certainty: 'billed', outcome: 'answered' })
  const [attempt] = report.calls[0]?.attempts ?? []
  expect(Number(attempt?.charged.amount) + Number(attempt?.overage.amount)).toBeGreaterThan(0.036)
  await expectSettled(world, run)
})

const REFUSED =
  'HTTP/1.1 429 Slow\r\ncontent-type: application/json\r\nretry-after-ms: 5000\r\ncontent-length: 2\r\n\r\n{}'

test('a caller who leaves while a provider is waited for is not asked for again: no other attempt is made', async () => {
  const { world, run, provider, ask } = await useStage(write(REFUSED), end(`${STREAM}\r\n${WHOLE}`))
  const gone = new AbortController()
  const asking = ask({ signal: gone.signal })
  await pollUntil(
    async () => (await world.db.selectFrom('attempt').select('outcome').execute())[0]?.outcome === 'rate_limited',
    { what: 'the refusal' },
  )
  gone.abort()
  expect(await asking).toMatchObject({ kind: 'failed', reason: 'aborted' })
  expect(provider.asked()).toBe(1)
  expect(await attemptsOf(world, run)).toMatchObject([{ outcome: 'rate_limited', certainty: null, charged: 0n }])
  await expectSettled(world, run)
})

test('a caller who leaves after the end of the answer, before its bill, is told it and pays what it cost', async () => {
  const { world, run, provider, ask } = await useStage(write(`${STREAM}\r\n${BEGUN}${ENDED}`))
  const gone = new AbortController()
  const heard: string[] = []
  const asking = ask({
    signal: gone.signal,
    onDelta: (delta) => void (delta.kind === 'text' && heard.push(delta.text)),
  })
  await pollUntil(() => heard.join('') === 'In 1711.', { what: 'the answer' })
  gone.abort()
  expect(await asking).toMatchObject({ kind: 'answered', answer: { text: 'In 1711.' } })
  expect(provider.asked()).toBe(1)
  expect(await attemptsOf(world, run)).toMatchObject([{ outcome: 'answered', certainty: 'estimated', use: 'useful' }])
  expect(await ask()).toMatchObject({ kind: 'answered' })
  expect(provider.asked()).toBe(1)
  await expectSettled(world, run)
})

test.each([
  ['before the headers', () => {}, 'aborted'],
  ['after the headers', write(`${STREAM}\r\n`), 'aborted'],
  ['in the stream', write(`${STREAM}\r\n${BEGUN}`), 'aborted'],
])('a caller who leaves %s pays once, and comes back for one more request', async (_, script, outcome) => {
  const { world, run, provider, ask } = await useStage(script, end(`${STREAM}\r\n${WHOLE}`))
  const gone = new AbortController()
  const asking = ask({ signal: gone.signal })
  await pollUntil(() => provider.asked() === 1, { what: 'the request' })
  gone.abort()
  expect(await asking).toMatchObject({ kind: 'failed', reason: 'aborted' })
  await pollUntil(() => provider.open() === 0, { what: 'the closed connection' })
  expect(await attemptsOf(world, run)).toMatchObject([{ outcome, certainty: 'estimated', use: 'wasted' }])
  expect(await ask({ again: true })).toMatchObject({ kind: 'answered', answer: { text: 'In 1711.' } })
  expect(provider.asked()).toBe(2)
  await expectSettled(world, run)
})
