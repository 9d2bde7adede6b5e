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

  test.each([
    ['placeholders alone, all of them empty', '{{a}}{{ b }}{{row}}', 0],
    ['a word between long names', `Is {{${'a very long name '.repeat(10)}}}?`, 2],
    ['more blanks than words', `One${' '.repeat(500)}two {{a}}`, 2],
    ['braces that are no placeholder', '{{ {{a}} }}', 2],
  ])('say of a map no more than its prompts surely have: %s', (_what, prompt, least) => {
    const planned = agents.map.manifest.plan?.({ datasetId: corpusId, prompt, maxTokens: 50 }) ?? []
    expect(planned.map(({ inputTokens }) => inputTokens.least)).toEqual([least])
  })

  test('say of a map with a schema that it stands in each prompt', () => {
    const input = { datasetId: corpusId, prompt: 'x', maxTokens: 50 }
    const schema = { type: 'object', description: 'long '.repeat(500) }
    const [plain, formed] = [input, { ...input, schema }].flatMap((each) => agents.map.manifest.plan?.(each) ?? [])
    const more = (formed?.inputTokens.most ?? 0) - (plain?.inputTokens.most ?? 0)
    expect(more).toBeGreaterThan(JSON.stringify(schema).length)
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
