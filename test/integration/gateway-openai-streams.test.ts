import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { readAll } from '../support/sandbox.ts'

const STEADY = { name: 'steady', upstreamModel: 'sandbox-steady' }
const catalog = gatewayCatalog({
  steady: [STEADY],
  paced: [{ upstreamModel: 'sandbox-steady:pace-250' }],
  fallback: [{ name: 'busy', upstreamModel: 'sandbox-busy' }, STEADY],
  whole: [{ ...STEADY, capabilities: { streaming: false } }],
  cut: [{ upstreamModel: 'sandbox-steady:cut-3' }, STEADY],
})
const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: QUESTION }]
const asked = { messages, max_tokens: 200 }

function streamOf(gateway: TestGateway, model: string, headers: Record<string, string> = {}) {
  return gateway.client().chat.completions.create({ ...asked, model, stream: true }, { headers })
}

/** A client that goes away with the first words of its answer. */
async function leave(gateway: TestGateway, headers: Record<string, string> = {}): Promise<void> {
  for await (const { choices } of await streamOf(gateway, 'paced', headers)) if (choices[0]?.delta.content) return
  throw new Error('the stream ended before its client went away')
}

async function attemptsOf({ api }: TestGateway) {
  return api.db.selectFrom('attempt').select(['number', 'state', 'outcome', 'detail']).orderBy('sent_at').execute()
}

async function untilSettled(gateway: TestGateway, attempts: number) {
  return pollUntil(
    async () => {
      const all = await attemptsOf(gateway)
      return all.length === attempts && all.every(({ state }) => state === 'resolved') ? all : undefined
    },
    { what: `the settlement of ${attempts} attempts` },
  )
}

async function heldBy({ api }: TestGateway): Promise<bigint> {
  const pockets = await api.db.selectFrom('account').select('pending_debit').where('kind', '=', 'pocket').execute()
  return pockets.reduce((sum, { pending_debit: held }) => sum + held, 0n)
}

test('a client that goes away ends its request at the provider within two seconds, and pays what was streamed', async () => {
  const gateway = await useGateway({ catalog })
  await leave(gateway)
  const leftMs = performance.now()
  await pollUntil(async () => (await gateway.sandbox.readLog())[0]?.clientGoneAt !== undefined, {
    what: 'the end at the provider',
  })
  expect(performance.now() - leftMs).toBeLessThan(2_000)
  const [attempt] = await untilSettled(gateway, 1)
  expect(attempt).toMatchObject({ outcome: 'aborted', detail: { certainty: 'estimated' } })
  expect(await heldBy(gateway)).toBe(0n)
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
  await expectVerified(gateway.api)
}, 60_000)

test('a provider that fails before its first word is followed by another, and the client hears one answer', async () => {
  const gateway = await useGateway({ catalog })
  const { data: stream, response } = await streamOf(gateway, 'fallback').withResponse()
  expect(response.headers.get('x-purser-route')).toBe('steady')
  const chunks = await readAll(stream)
  const pieces = chunks.flatMap(({ choices }) => choices)
  expect(pieces.map(({ delta }) => delta.content ?? '').join('')).toContain('1711')
  expect(pieces.filter(({ delta }) => delta.role)).toHaveLength(1)
  expect(pieces.filter(({ finish_reason: reason }) => reason)).toHaveLength(1)
  expect(new Set(chunks.map(({ id }) => id)).size).toBe(1)
  expect(chunks.at(-1)).toMatchObject({ purser: { route: 'steady', attempts: 3 } })
  expect((await gateway.sandbox.readLog()).map(({ status }) => status)).toEqual([429, 429, 200])
  await expectVerified(gateway.api)
}, 60_000)

test('a route that answers in one piece serves a client that wants a stream', async () => {
  const gateway = await useGateway({ catalog })
  const { data: stream, response } = await streamOf(gateway, 'whole').withResponse()
  const chunks = await readAll(stream)
  expect(response.headers.get('x-purser-cost')).toMatch(/^0\.0\d+ USD$/)
  const texts = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta.content))
  expect(texts).toEqual([expect.stringContaining('1711'), undefined])
  expect(chunks.at(-1)?.usage?.completion_tokens).toBeGreaterThan(0)

  const responses = await gateway.client().responses.create({ model: 'whole', input: QUESTION, stream: true })
  expect((await readAll(responses)).at(-1)?.type).toBe('response.completed')
  const question = { role: 'user', content: QUESTION } as const
  const message = gateway.anthropic().messages.stream({ model: 'whole', max_tokens: 200, messages: [question] })
  expect((await message.finalMessage()).stop_reason).toBe('end_turn')
  await expectVerified(gateway.api)
}, 60_000)

test('a provider that breaks off in the middle ends the stream with an error, and nothing is begun again', async () => {
  const gateway = await useGateway({ catalog })
  const roles: string[] = []
  let text = ''
  const read = async () => {
    for await (const { choices } of await streamOf(gateway, 'cut')) {
      text += choices[0]?.delta.content ?? ''
      if (choices[0]?.delta.role) roles.push(choices[0].delta.role)
    }
  }
  const error: unknown = await read().catch((each: unknown) => each)
  if (!(error instanceof OpenAI.APIError)) throw new Error('the stream ended as if it were whole')
  expect(error).toMatchObject({ code: 'upstream_failed', error: { remedy: expect.stringContaining('later') } })
  expect(error.message).toContain('stream_broken')
  expect(text).not.toBe('')
  expect(roles).toHaveLength(1)
  const [attempt] = await untilSettled(gateway, 1)
  expect(attempt).toMatchObject({ outcome: 'cut_stream', detail: { certainty: 'estimated' } })
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
  expect(await heldBy(gateway)).toBe(0n)
  await expectVerified(gateway.api)
}, 60_000)

test('a request that is repeated after its client went away is sent once more, and its answer kept', async () => {
  const gateway = await useGateway({ catalog })
  const headers = { 'Idempotency-Key': 'came-back' }
  await leave(gateway, headers)
  await untilSettled(gateway, 1)
  const { data, response } = await gateway
    .client()
    .chat.completions.create({ ...asked, model: 'paced' }, { headers })
    .withResponse()
  expect(response.headers.get('x-purser-attempts')).toBe('2')
  const chunks = await readAll(await streamOf(gateway, 'paced', headers))
  const pieces = chunks.flatMap(({ choices }) => choices)
  expect(pieces.map(({ delta }) => delta.content)).toEqual([data.choices[0]?.message.content, undefined])
  expect(chunks.at(-1)?.usage).toEqual(data.usage)
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
  await expectVerified(gateway.api)
}, 60_000)

test('a request whose client goes away again and again is sent no more often than it may be', async () => {
  const gateway = await useGateway({ catalog })
  const headers = { 'Idempotency-Key': 'never-waits' }
  await leave(gateway, headers)
  await untilSettled(gateway, 1)
  await leave(gateway, headers)
  await untilSettled(gateway, 2)
  const error: unknown = await leave(gateway, headers).catch((each: unknown) => each)
  if (!(error instanceof OpenAI.APIError)) throw new Error('it was sent again')
  const remedy = expect.stringContaining('paid for again')
  expect(error).toMatchObject({ status: 502, code: 'repeat_not_allowed', error: { remedy } })
  expect(error.headers?.get('x-should-retry')).toBe('false')
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
  expect(await heldBy(gateway)).toBe(0n)
  await expectVerified(gateway.api)
}, 60_000)
