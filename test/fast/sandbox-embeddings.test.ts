import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { encode } from 'gpt-tokenizer/encoding/o200k_base'
import { expect, test } from 'vitest'
import { type TestSandbox, useSandbox } from '#test/support/sandbox.ts'

const model = 'sandbox-embed'

async function embed(
  { client }: TestSandbox,
  input: string | string[],
  extra: object = {},
): Promise<readonly number[][]> {
  const { data } = await client.embeddings.create({ model, input, ...extra })
  return data.toSorted((left, right) => left.index - right.index).map((each) => each.embedding)
}

test('the same text has the same vector of length 1, in whichever form it comes', async () => {
  const sandbox = await useSandbox()
  const [first = [], second = [], again = []] = await embed(sandbox, ['a lever', 'a pump', 'a lever'])
  expect(first).toHaveLength(256)
  expect(again).toEqual(first)
  expect(second).not.toEqual(first)
  for (const vector of [first, second]) expect(Math.hypot(...vector)).toBeCloseTo(1, 5)
  expect(await embed(sandbox, 'a lever', { encoding_format: 'float' })).toEqual([first])
  const { data } = await sandbox.client.embeddings.create({ model, input: 'a lever', encoding_format: 'base64' })
  const bytes = Buffer.from(String(data[0]?.embedding), 'base64')
  expect(Array.from({ length: 256 }, (_, at) => bytes.readFloatLE(4 * at))).toEqual(first)
  const { data: byTokens } = await sandbox.client.embeddings.create({ model, input: encode('a lever') })
  expect(byTokens[0]?.embedding).toEqual(first)
})

test('has as many dimensions as are asked for', async () => {
  const [vector = []] = await embed(await useSandbox(), 'a lever', { dimensions: 1000 })
  expect(vector).toHaveLength(1000)
  expect(Math.hypot(...vector)).toBeCloseTo(1, 5)
})

test('tokens are counted and billed', async () => {
  const sandbox = await useSandbox()
  const { usage } = await sandbox.client.embeddings.create({ model, input: ['a lever', 'a pump'] })
  const tokens = countTokens('a lever') + countTokens('a pump')
  expect(usage).toEqual({ prompt_tokens: tokens, total_tokens: tokens })
  expect(await sandbox.readLog()).toMatchObject([
    {
      finished: true,
      usage: { promptTokens: tokens, completionTokens: 0 },
      billed: `0.0000000${tokens * 20}`.padEnd(11, '0'),
    },
  ])
})

test('faults strike here too', async () => {
  const sandbox = await useSandbox()
  const send = async (word: string) => sandbox.client.embeddings.create({ model: `${model}:${word}`, input: 'a lever' })
  await expect(send('429')).rejects.toMatchObject({ status: 429 })
  await expect(send('cut-0')).rejects.toThrow(/Connection error/u)
  await expect(send('cut-headers')).rejects.toThrow(/Connection error/u)
  expect((await send('usage-negative')).usage.prompt_tokens).toBe(-1 - countTokens('a lever'))
  expect((await send('no-usage')).usage).toBeUndefined()
})

test.each<[string, object]>([
  ['no text', { input: '' }],
  ['nothing', { input: [] }],
  ['an empty one among others', { input: ['a', ''] }],
  ['no tokens of this encoding', { input: [99_999_999] }],
  ['too many', { input: Array.from({ length: 2049 }, () => 'a') }],
  ['no dimensions', { input: 'a', dimensions: 0 }],
  ['too many dimensions', { input: 'a', dimensions: 5000 }],
  ['a strange form', { input: 'a', encoding_format: 'int8' }],
  ['a text beyond the context', { input: 'word '.repeat(9000) }],
])('%s: 400', async (_, extra) => {
  const { client } = await useSandbox()
  await expect(client.post('/embeddings', { body: { model, ...extra } })).rejects.toMatchObject({ status: 400 })
})

test('models of one kind do not do the work of the other', async () => {
  const { client } = await useSandbox()
  const messages = [{ role: 'user' as const, content: 'a' }]
  await expect(client.embeddings.create({ model: 'sandbox-steady', input: 'a' })).rejects.toMatchObject({ status: 404 })
  await expect(client.chat.completions.create({ model, messages })).rejects.toMatchObject({ status: 404 })
})
