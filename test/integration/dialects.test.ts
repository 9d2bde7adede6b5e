import type { CallRequest } from '#calls/call.ts'
import { executeCall } from '#calls/execute.ts'
import type { ChatBody, ToolDefinition } from '#contracts/chat.ts'
import type { AnswerDelta } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { attemptsOf, createFaultWorld, reportOf, type ScriptedRoute } from '../support/fault-world.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { requestsSeen, type TestRun, type World } from '../support/world.ts'

/** Each component has a price of its own, so that none is taken for another. */
const PRICES = {
  input: '0.40',
  cachedInput: '0.07',
  cacheWrite: '0.53',
  output: '1.60',
  reasoning: '1.10',
  perCall: '0.000000011',
  perImage: '0.000000170',
  tiers: [
    {
      aboveInputTokens: 600,
      input: '0.80',
      cachedInput: '0.13',
      cacheWrite: '1.07',
      output: '2.30',
      reasoning: '2.00',
    },
  ],
}
const KINDS = ['openai', 'anthropic'] as const
const PASSAGE = '<passage id="p1">The mill of Orvane was built in 1711.</passage>'
const SEARCH: ToolDefinition = {
  name: 'search',
  description: 'Searches the archive.',
  parameters: { type: 'object', properties: { query: { type: 'string' } }, required: ['query'] },
}

async function startTalk(kind: 'openai' | 'anthropic', route: Partial<ScriptedRoute> = {}) {
  const world = await createFaultWorld({
    kind,
    models: [{ name: 'priced', routes: [{ model: 'priced', prices: PRICES, ...route }] }],
  })
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const ask = async (path: string, body: Omit<ChatBody, 'maxTokens'>, change: Partial<CallRequest> = {}) => {
    const request = run.request(path, '', { model: 'priced', body: { maxTokens: 300, ...body }, ...change })
    const result = await executeCall(engine, request)
    if (result.kind !== 'answered') throw new Error(JSON.stringify(result))
    return result.answer
  }
  return { world, run, ask, settled: () => settle(world, run) }
}

/** Books and bill agree. Returns what the attempts used, in order. */
async function settle(world: World, run: TestRun) {
  for (const { certainty, charged, billed, held } of await attemptsOf(world, run)) {
    expect({ certainty, charged }).toEqual({ certainty: 'billed', charged: billed })
    expect(charged).toBeGreaterThan(0n)
    expect(charged).toBeLessThanOrEqual(held)
  }
  await expectVerified(world)
  return (await reportOf(world, run)).calls.flatMap(({ attempts }) => attempts.map(({ tokens }) => tokens))
}

const user = (content: string) => ({ role: 'user', content }) as const

test.each(KINDS)(
  'a tool is called, its result is handed back, and both calls cost what is billed (%s)',
  async (kind) => {
    const { ask, settled } = await startTalk(kind)
    const question = user('When was the mill of Orvane built? Use search.')
    const first = await ask('call', { messages: [question], tools: [SEARCH], toolChoice: { name: 'search' } })
    expect(first).toMatchObject({ finishReason: 'tool_calls', toolCalls: [{ name: 'search' }] })
    const [call] = first.toolCalls ?? []
    if (!call) throw new Error('no tool was called')
    expect(JSON.parse(call.arguments)).toMatchObject({ query: expect.any(String) })
    const second = await ask('result', {
      messages: [
        question,
        { role: 'assistant', content: first.text, toolCalls: [call] },
        { role: 'tool', toolCallId: call.id, content: PASSAGE },
      ],
      tools: [SEARCH],
    })
    expect(second).toMatchObject({ finishReason: 'stop', text: expect.stringContaining('1711') })
    expect(await settled()).toHaveLength(2)
  },
)

test.each(KINDS)('a tool call is told piece by piece, and whole at the end (%s)', async (kind) => {
  const { ask, settled } = await startTalk(kind)
  const told: AnswerDelta[] = []
  const answer = await ask(
    'call',
    { messages: [user('When was the mill of Orvane built?')], tools: [SEARCH], toolChoice: 'required' },
    { onDelta: (delta) => void told.push(delta) },
  )
  const pieces = told.flatMap((delta) => (delta.kind === 'tool_call' ? [delta] : []))
  expect(pieces[0]).toMatchObject({ index: 0, id: answer.toolCalls?.[0]?.id, name: 'search' })
  expect(pieces.length).toBeGreaterThan(1)
  expect(pieces.map((piece) => piece.arguments).join('')).toBe(answer.toolCalls?.[0]?.arguments)
  await settled()
})

test.each(KINDS)('an answer by JSON schema is JSON of it (%s)', async (kind) => {
  const { ask, settled } = await startTalk(kind)
  const schema = {
    type: 'object',
    properties: { answer: { type: 'string' } },
    required: ['answer'],
    additionalProperties: false,
  }
  const { text } = await ask('a', {
    messages: [user(`${PASSAGE} When was the mill of Orvane built?`)],
    schema: { name: 'fact', schema },
  })
  expect(JSON.parse(text)).toEqual({ answer: expect.stringContaining('1711') })
  await settled()
})

test.each(KINDS)('an image costs what its tokens cost, and its fee (%s)', async (kind) => {
  const { ask, settled } = await startTalk(kind, { route: { capabilities: { vision: true }, imageTokens: 200 } })
  const url = 'data:image/png;base64,iVBORw0KGgo='
  const content = [
    { type: 'text' as const, text: `${PASSAGE} When was it built?` },
    { type: 'image' as const, url },
  ]
  await ask('a', { messages: [{ role: 'user', content }] })
  await ask('b', { messages: [{ role: 'user', content: [...content, { type: 'image' as const, url }] }] })
  expect(await settled()).toMatchObject([{ images: 1 }, { images: 2 }])
})

test('hidden reasoning is paid at its own price', async () => {
  const reasons = { sandbox: { reasoningTokens: 48 }, route: { capabilities: { reasoning: true } } }
  const { ask, settled } = await startTalk('openai', reasons)
  await ask('a', { messages: [user(`${PASSAGE} When was it built?`)] })
  const [tokens] = await settled()
  expect(tokens?.reasoning).toBe(48)
  expect(tokens?.output).toBeGreaterThan(48)
})

test('what a provider has cached costs less, to the nano', async () => {
  const { ask, settled, world, run } = await startTalk('openai', { sandbox: { cache: true } })
  const system = { role: 'system', content: `${PASSAGE} ${'The harbour was dredged by hand. '.repeat(20)}` } as const
  for (const path of ['a', 'b'])
    await ask(path, { messages: [system, user('When was the mill of Orvane built?')], seed: path === 'a' ? 1 : 2 })
  const [first, second] = await settled()
  expect(first?.cachedInput).toBe(0)
  expect(second?.cachedInput).toBeGreaterThan(100)
  const [dear, cheap] = await attemptsOf(world, run)
  const saved = BigInt(second?.cachedInput ?? 0) * 330_000_000n
  expect((dear?.charged ?? 0n) - (cheap?.charged ?? 0n)).toBe(saved / 1_000_000n)
})

test('a prompt that Anthropic writes into its cache costs more once, and less from then on', async () => {
  const { ask, settled } = await startTalk('anthropic')
  const system = { role: 'system', content: `${PASSAGE} ${'The harbour was dredged by hand. '.repeat(20)}` } as const
  const begun = [system, user('When was the mill of Orvane built?')]
  const { text } = await ask('begun', { messages: begun })
  await ask('gone on', { messages: [...begun, { role: 'assistant', content: text }, user('And the harbour?')] })
  const [first, second] = await settled()
  expect(first).toMatchObject({ cachedInput: 0 })
  expect(first?.cacheWrite).toBeGreaterThan(100)
  expect(second?.cachedInput).toBe(first?.cacheWrite)
  expect(second?.cacheWrite).toBeGreaterThan(5)
})

test.each(KINDS)('a prompt beyond a tier is paid at its prices, all of it (%s)', async (kind) => {
  const { ask, settled } = await startTalk(kind)
  await ask('short', { messages: [user(`${PASSAGE} When was it built?`)] })
  await ask('long', { messages: [user(`${PASSAGE} ${'It was dredged by hand. '.repeat(150)} When was it built?`)] })
  const [short, long] = await settled()
  expect(short?.input).toBeLessThan(600)
  expect(long?.input).toBeGreaterThan(600)
})

test('texts are embedded once: their vectors are stored, and come from there when asked again', async () => {
  const world = await createFaultWorld({
    models: [
      {
        name: 'embed',
        kind: 'embedding',
        routes: [{ model: 'embed', prices: { input: '0.02', output: '0' }, sandbox: { kind: 'embedding' } }],
      },
    ],
  })
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const input = ['The mill of Orvane', 'The harbour of Quellim']
  const request = run.request('embed', '', { model: 'embed', body: { input, dimensions: 64 } })
  const first = await executeCall(engine, request)
  if (first.kind !== 'answered') throw new Error(JSON.stringify(first))
  expect(first.answer.vectors?.map(numbersOf)).toEqual(await embeddedDirectly(world, input))
  expect(await executeCall(await world.startEngine(), request)).toEqual(first)
  expect((await requestsSeen(world.sandbox)).filter(({ callKey }) => callKey === first.callId)).toHaveLength(1)
  expect(await settle(world, run)).toMatchObject([{ output: 0 }])
})

function numbersOf(vector: string): readonly number[] {
  const bytes = Buffer.from(vector, 'base64')
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(4 * index))
}

/** As 32-bit numbers, which is what is kept. */
async function embeddedDirectly(world: World, input: string[]): Promise<readonly (readonly number[])[]> {
  const asked = { model: 'embed', input, dimensions: 64, encoding_format: 'float' } as const
  const { data } = await world.sandbox.client.embeddings.create(asked)
  return data.map(({ embedding }) => embedding.map(Math.fround))
}
