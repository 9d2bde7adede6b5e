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
    const data = manifests.map(({ plan: _plan, ...manifest }) => manifest)
    expect(JSON.parse(JSON.stringify(manifests))).toEqual(data)
  })

  test('say what a map over a dataset asks, at least and at most', () => {
    const input = { datasetId: corpusId, prompt: '{{a}} and {{b}}?', maxTokens: 50 }
    const dataset = { rows: 700, bytes: 70_000, mostRowBytes: 1_000 }
    const [step, ...others] = agents.map.manifest.plan?.(input, { dataset }) ?? []
    expect(others).toEqual([])
    expect(step).toMatchObject({ path: 'rows', calls: { least: 700, most: 700 }, outputTokens: { least: 1, most: 50 } })
    expect(step?.inputTokens.most).toBeGreaterThan(2_000)
    expect(step?.inputTokens.least).toBeLessThan(20)
    expect(agents.map.manifest.plan?.(input)).toMatchObject([{ calls: { least: 1, most: 100_000 } }])
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
