import { checkJsonSchema } from '#contracts/json-schema.ts'
import { expect, test } from 'vitest'

const LONG = 'the vault opens with 4711-kestrel '.repeat(400)

test.each([
  ['a name that the schema does not know', { type: 'object', additionalProperties: false }],
  ['what stands under a name', { type: 'object', additionalProperties: { type: 'number' } }],
])('of %s a few words are quoted, however long it is', (_what, schema) => {
  const checked = checkJsonSchema(schema, { [LONG]: 'x' })
  if (checked.ok) throw new Error('it fits')
  expect(checked.detail).toContain('4711-kestrel')
  expect(checked.detail.length).toBeLessThan(300)
})

test('what does not fit is named with its path, no more than five of it', () => {
  const properties = Object.fromEntries(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => [name, { type: 'number' }]))
  const value = Object.fromEntries(Object.keys(properties).map((name) => [name, 'x']))
  const checked = checkJsonSchema({ type: 'object', properties }, value)
  expect(checked).toMatchObject({ ok: false, detail: expect.stringMatching(/^a: [^;]+; b: [^;]+; c: .+; e: [^;]+$/) })
})
