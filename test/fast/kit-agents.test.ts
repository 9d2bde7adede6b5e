import * as agents from '#workflows/index.ts'
import { manifests } from '#workflows/manifests.ts'
import { checkJsonSchema } from '#contracts/json-schema.ts'
import { describe, expect, test } from 'vitest'

const corpusId = '01980000-0000-7000-8000-000000000001'

describe('agents outside the sandbox', () => {
  test('are exported under the name that is their workflow type', () => {
    const names = Object.entries(agents).map(([name, agent]) => [name, agent.manifest.name])
    expect(names.length).toBeGreaterThan(0)
    for (const [exported, declared] of names) expect(exported).toBe(declared)
  })

  test('are described by data that survives JSON', () => {
    expect(JSON.parse(JSON.stringify(manifests))).toEqual(manifests)
  })

  test('say what input they take', () => {
    const schema = agents.research.manifest.input
    const question = 'How long?'
    expect(checkJsonSchema(schema, { question, corpusId })).toEqual({
      ok: true,
      value: { question, corpusId, breadth: 4 },
    })
    expect(checkJsonSchema(schema, { question, corpusId: 'here' })).toMatchObject({ ok: false })
    expect(checkJsonSchema(schema, { question: '', corpusId })).toMatchObject({ ok: false })
    expect(checkJsonSchema(schema, { question, corpusId, breadth: 7 })).toMatchObject({ ok: false })
    expect(checkJsonSchema(schema, { question, corpusId, depth: 1 })).toMatchObject({ ok: false })
  })
})
