import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { usd } from '../support/api.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { CLAUDE, gatewayCatalog } from '../support/gateway-catalog.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { readAll } from '../support/sandbox.ts'

const PASSAGES = `<passage id="p1">The mill of Orvane was built in 1711. The harbour of Orvane was dredged in 1802.</passage>
<passage id="p2">The bridge of Tessel collapsed in 1901.</passage>`
/** Of three answers each has a sentence less. */
const QUESTION = `${PASSAGES} When was the mill of Orvane built? When was the harbour of Orvane dredged? When did the bridge of Tessel collapse?`
const FACT = 'The mill of Orvane was built in 1711.'
const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: QUESTION }]

const STEADY = { name: 'steady', upstreamModel: 'sandbox-steady' }
const PICTURE =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

const catalog = gatewayCatalog({
  steady: [STEADY],
  claude: [CLAUDE],
  both: [CLAUDE, STEADY],
  tuned: [{ ...STEADY, capabilities: { parameters: ['top_k'] } }],
  seeing: [{ ...STEADY, capabilities: { vision: true } }],
  long: [{ ...STEADY, maxOutputTokens: 16_384 }],
})

async function refusalOf(answer: Promise<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> {
  const error: unknown = await answer.then(
    () => new Error('it was answered'),
    (each: unknown) => each,
  )
  if (error instanceof OpenAI.APIError) return error
  throw error
}

async function holdsOf({ api }: TestGateway): Promise<readonly bigint[]> {
  const rows = await api.db.selectFrom('transfer').select('amount').where('code', '=', 'hold').orderBy('seq').execute()
  return rows.map(({ amount }) => amount)
}

test('several answers are one request, held for each of them, and told by their place, whole, streamed and again', async () => {
  const gateway = await useGateway({ catalog })
  const client = gateway.client()
  const asked = { model: 'steady', messages, max_tokens: 200 }
  await client.chat.completions.create(asked)
  const whole = await client.chat.completions.create({ ...asked, n: 3 })
  expect(whole.choices.map(({ index, finish_reason: reason }) => [index, reason])).toEqual([
    [0, 'stop'],
    [1, 'stop'],
    [2, 'stop'],
  ])
  const texts = whole.choices.map(({ message }) => message.content ?? '')
  expect(new Set(texts).size).toBe(3)

  const [one = 0n, three = 0n] = await holdsOf(gateway)
  // Two more answers of 200 tokens at 1.60 USD per million.
  expect(three - one).toBe(2n * 200n * 1_600n)

  const options = { headers: { 'Idempotency-Key': 'three' } }
  const told = async () => {
    const chunks = await readAll(await client.chat.completions.create({ ...asked, n: 3, stream: true }, options))
    const answers = ['', '', '']
    const pieces = chunks.flatMap(({ choices }) => choices)
    for (const { index, delta } of pieces) answers[index] += delta.content ?? ''
    expect(pieces.filter(({ finish_reason: reason }) => reason === 'stop').map(({ index }) => index)).toEqual([0, 1, 2])
    expect(new Set(pieces.filter(({ delta }) => delta.role).map(({ index }) => index)).size).toBe(3)
    expect(pieces.filter(({ delta }) => delta.role)).toHaveLength(3)
    return { answers, pieces: pieces.length, usage: chunks.at(-1)?.usage }
  }
  const first = await told()
  expect(first).toMatchObject({ answers: texts, usage: whole.usage })
  const again = await told()
  expect(again).toMatchObject({ answers: texts, pieces: 6 })
  expect(first.pieces).toBeGreaterThan(again.pieces)
  expect(await gateway.sandbox.readLog()).toHaveLength(3)
  await expectVerified(gateway.api)
}, 60_000)

test('a route that gives one answer only is passed over for several, and the refusal names n when no other is left', async () => {
  const gateway = await useGateway({ catalog })
  const client = gateway.client()
  const asked = { messages, max_tokens: 200, n: 2 }
  const { data, response } = await client.chat.completions.create({ ...asked, model: 'both' }).withResponse()
  expect(data.choices).toHaveLength(2)
  expect(response.headers.get('x-purser-route')).toBe('steady')
  const plain = await client.chat.completions.create({ ...asked, n: 1, model: 'both' }).withResponse()
  expect(plain.response.headers.get('x-purser-route')).toBe('claude')
  expect(await refusalOf(client.chat.completions.create({ ...asked, model: 'claude' }))).toMatchObject({
    status: 400,
    code: 'unsupported_parameter',
    param: 'n',
  })
  expect(await refusalOf(client.chat.completions.create({ ...asked, model: 'both', n: 9 }))).toMatchObject({
    status: 400,
    param: 'n',
  })
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
}, 60_000)

test('what a message says beside its text is refused by name rather than lost', async () => {
  const gateway = await useGateway({ catalog })
  const ask = (change: object) =>
    gateway.client().chat.completions.create(Object.assign({ model: 'steady', messages, max_tokens: 100 }, change))
  const said = (more: object) => ({
    messages: [...messages, { role: 'assistant', content: 'In 1711.', ...more }, ...messages],
  })
  // As clients write down an answer that they were given.
  await ask(said({ refusal: null, audio: null, function_call: null, annotations: [], tool_calls: null }))
  await ask(said({ content: [{ type: 'refusal', refusal: 'I cannot help with that.' }] }))
  await ask({
    tools: [{ type: 'function', function: { name: 'note', description: null, parameters: null, strict: null } }],
  })
  for (const [change, param] of [
    [said({ function_call: { name: 'note', arguments: '{}' } }), 'messages.1.function_call'],
    [said({ audio: { id: 'audio_1' } }), 'messages.1.audio'],
    [said({ content: [{ type: 'refusal' }] }), 'messages.1.content'],
    [
      said({ tool_calls: [{ id: 'c', type: 'custom', custom: { name: 'note', input: 'x' } }] }),
      'messages.1.tool_calls.0.type',
    ],
    [{ stop: 5 }, 'stop'],
    [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 'stop'],
    [{ stop: '' }, 'stop'],
  ] as const) {
    const refusal = await refusalOf(ask(change))
    expect([refusal.status, refusal.param]).toEqual([400, param])
    expect(refusal.message).not.toContain('Invalid input')
  }
  expect(await gateway.sandbox.readLog()).toHaveLength(3)
}, 60_000)

test('further members go to routes that take them, and are refused by name when none does', async () => {
  const gateway = await useGateway({ catalog })
  const ask = (model: string, more: object) =>
    gateway.client().chat.completions.create({ model, messages, max_tokens: 100, ...more })
  const usual = {
    frequency_penalty: 0.2,
    logit_bias: { 7: 1 },
    parallel_tool_calls: false,
    user: 'u',
    metadata: { a: 'b' },
  }
  const taken = { store: false, service_tier: 'auto', modalities: ['text'], logprobs: false, audio: null }
  await ask('steady', { ...usual, ...taken })
  await ask('tuned', { top_k: 4, messages: [{ role: 'user', name: 'ada', content: QUESTION }] })
  for (const [model, more, param] of [
    ['steady', { top_k: 4 }, 'top_k'],
    ['tuned', { top_k: 4, user: 'u' }, 'user'],
    ['claude', { frequency_penalty: 0.2 }, 'frequency_penalty'],
    ['claude', { response_format: { type: 'json_object' } }, 'response_format'],
    ['steady', { web_search_options: {} }, 'web_search_options'],
    ['steady', { models: ['other/model'] }, 'models'],
    ['steady', { store: true }, 'store'],
    ['steady', { service_tier: 'priority' }, 'service_tier'],
  ] as const) {
    const refusal = await refusalOf(ask(model, more))
    expect([refusal.status, refusal.code, refusal.param]).toEqual([400, 'unsupported_parameter', param])
  }
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
  await expectVerified(gateway.api)
}, 60_000)

const tools: OpenAI.ChatCompletionFunctionTool[] = [
  {
    type: 'function',
    function: {
      name: 'note_fact',
      description: 'Notes a fact.',
      parameters: { type: 'object', properties: { answer: { type: 'string' } }, required: ['answer'] },
    },
  },
]

test.each(['steady', 'claude'])(
  'tools are called, whole and streamed, and their results answered from, by %s',
  async (model) => {
    const gateway = await useGateway({ catalog })
    const client = gateway.client()
    const asked = { model, messages, tools, tool_choice: 'required' as const, max_tokens: 200 }
    const whole = await client.chat.completions.create(asked)
    const streamed = await client.chat.completions.stream(asked).finalChatCompletion()
    for (const { choices } of [whole, streamed]) {
      expect(choices[0]).toMatchObject({
        finish_reason: 'tool_calls',
        message: { content: null, tool_calls: [{ type: 'function', function: { name: 'note_fact' } }] },
      })
    }
    const [call] = whole.choices[0]?.message.tool_calls ?? []
    if (call?.type !== 'function') throw new Error('no function was called')
    expect(call.function.arguments).toContain(FACT)
    const { choices } = await client.chat.completions.create({
      model,
      tools,
      max_tokens: 200,
      messages: [
        ...messages,
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', tool_call_id: call.id, content: 'The year 1711 was noted in the book of mills.' },
      ],
    })
    expect(choices[0]).toMatchObject({ finish_reason: 'stop' })
    expect(choices[0]?.message.content).not.toBe('')
    await expectVerified(gateway.api)
  },
  60_000,
)

test('an answer is JSON where that is asked for: of a schema, or any object', async () => {
  const gateway = await useGateway({ catalog })
  const client = gateway.client()
  const schema = {
    type: 'object',
    properties: { answer: { type: 'string' } },
    required: ['answer'],
    additionalProperties: false,
  }
  const asked = { model: 'steady', messages, max_tokens: 200 }
  const read = async (format: OpenAI.ChatCompletionCreateParams['response_format'], stream: boolean) => {
    const body = { ...asked, ...(format && { response_format: format }) }
    const { choices } = stream
      ? await client.chat.completions.stream(body).finalChatCompletion()
      : await client.chat.completions.create(body)
    return z.record(z.string(), z.unknown()).parse(JSON.parse(choices[0]?.message.content ?? ''))
  }
  const format = { type: 'json_schema', json_schema: { name: 'fact', schema, strict: true } } as const
  expect(await read(format, false)).toEqual({ answer: expect.stringContaining(FACT) })
  expect(await read(format, true)).toEqual({ answer: expect.stringContaining(FACT) })
  expect(Object.keys(await read({ type: 'json_object' }, false))).toEqual(['answer'])
}, 60_000)

test('an image in the request is seen, counted and paid, and refused where nobody sees', async () => {
  const gateway = await useGateway({ catalog })
  const client = gateway.client()
  const seeing: OpenAI.ChatCompletionMessageParam[] = [
    {
      role: 'user',
      content: [
        { type: 'text', text: QUESTION },
        { type: 'image_url', image_url: { url: PICTURE, detail: 'low' } },
      ],
    },
  ]
  const blind = await client.chat.completions.create({ model: 'seeing', messages, max_tokens: 200 })
  const seen = await client.chat.completions.create({ model: 'seeing', messages: seeing, max_tokens: 200 })
  expect((seen.usage?.prompt_tokens ?? 0) - (blind.usage?.prompt_tokens ?? 0)).toBe(85)
  const refusal = await refusalOf(
    client.chat.completions.create({ model: 'steady', messages: seeing, max_tokens: 200 }),
  )
  expect(refusal).toMatchObject({ status: 422, code: 'no_route' })
  expect(refusal.message).toContain('lacks_vision')
  await expectVerified(gateway.api)
}, 60_000)

const CALLERS = 24
const AFFORDABLE = 20

test('without a bound of the output nobody is refused while there is money for him; with one it is that or nothing', async () => {
  const gateway = await useGateway({ catalog })
  const { api, sandbox, tenant } = gateway
  const client = gateway.client()
  // Most of the floor is used, so that little comes back of each hold.
  await sandbox.control('PUT', '/settings/sandbox-steady', { reasoningTokens: 200, delayFirstByteMs: 300 })
  await client.chat.completions.create({ model: 'long', messages, max_tokens: 256 })
  const [floor = 0n] = await holdsOf(gateway)
  const cap = floor * BigInt(AFFORDABLE)
  const amount = `0.${cap.toString().padStart(9, '0')}`
  await api.make('/api/v1/limits', {
    key: api.operatorKey,
    body: { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'life', cap: usd(amount) },
  })
  const bounded = await refusalOf(client.chat.completions.create({ model: 'long', messages, max_tokens: 16_000 }))
  expect(bounded).toMatchObject({ status: 402, code: 'insufficient_quota' })

  const results = await Promise.allSettled(
    Array.from({ length: CALLERS }, () => client.chat.completions.create({ model: 'long', messages })),
  )
  const refused = results.flatMap((each) => (each.status === 'rejected' ? [each.reason] : []))
  expect(CALLERS - refused.length).toBeGreaterThanOrEqual(AFFORDABLE)
  for (const reason of refused) expect(reason).toMatchObject({ status: 402 })
  const log = await sandbox.readLog()
  expect(log).toHaveLength(1 + CALLERS - refused.length)
  const pockets = await api.db.selectFrom('account').select('pending_debit').where('kind', '=', 'pocket').execute()
  expect(pockets.map(({ pending_debit: held }) => held)).toEqual([0n])
  await expectVerified(api)
}, 120_000)
