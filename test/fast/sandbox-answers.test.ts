import { randomBytes, randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { complete } from '#sandbox/completion.ts'
import { toSentences } from '#sandbox/sentences.ts'

interface Fact {
  readonly id: string
  readonly question: string
  readonly sentence: string
}

/** A pronounceable name that no corpus holds. */
function makeName(): string {
  const syllables = Array.from({ length: 4 }, () => `${'bdfgklmnprtvz'[randomInt(13)]}${'aeiou'[randomInt(5)]}`)
  return `${syllables.join('').replace(/^./u, (first) => first.toUpperCase())}n`
}

function makeFacts(count: number): readonly Fact[] {
  return Array.from({ length: count }, () => {
    const name = makeName()
    const value = randomInt(100, 1000)
    const [question, sentence] = [
      [`What is the melting point of ${name}?`, `The melting point of ${name} is ${value} kelvin.`],
      [`How many moons does the planet ${name} have?`, `The planet ${name} has ${value} moons, e.g. a very small one.`],
      [`Who founded the harbour of ${name}?`, `The harbour of ${name} was founded by ${makeName()} in 1${value}.`],
    ][randomInt(3)] ?? ['', '']
    return { id: randomBytes(4).toString('hex'), question: question ?? '', sentence: sentence ?? '' }
  })
}

function asPassages(facts: readonly Fact[]): string {
  return facts
    .map(
      ({ id, sentence }) =>
        `<passage source="${id}.md" id="${id}">\n## Notes\n\nMuch is said here. ${sentence}\n</passage>`,
    )
    .join('\n')
}

function ask(content: string, maxTokens = 500): string {
  return complete({ messages: [{ role: 'user', text: content }], format: { kind: 'text' }, maxTokens })
}

function fill<Schema extends z.ZodType>(schema: Schema, content: string): z.output<Schema> {
  const format = {
    kind: 'json_schema',
    name: 'result',
    description: '',
    schema: { ...z.toJSONSchema(schema) },
  } as const
  return schema.parse(JSON.parse(complete({ messages: [{ role: 'user', text: content }], format, maxTokens: 2000 })))
}

describe('a free-text answer', () => {
  test('quotes the one passage that knows, with its id, among many facts made up a moment ago', () => {
    const facts = makeFacts(12)
    for (const { id, question, sentence } of facts) {
      expect(ask(`${asPassages(facts)}\n<question>${question}</question>`)).toBe(`${sentence} [${id}]`)
    }
  })

  test('is NOT FOUND when the passages speak of other things of the same kind', () => {
    const facts = makeFacts(12)
    for (const { question } of makeFacts(12)) {
      expect(ask(`${asPassages(facts)}\n<question>${question}</question>`)).toBe('NOT FOUND')
    }
  })

  test('takes the question from the text around the passages when nothing marks it', () => {
    const [fact = { id: '', question: '', sentence: '' }, ...others] = makeFacts(5)
    const content = `Use the passages only. Cite them.\n\n${fact.question}\n\n${asPassages([...others, fact])}`
    expect(ask(content)).toBe(`${fact.sentence} [${fact.id}]`)
  })

  test('answers both parts of a question from two passages', () => {
    const content = `<passage id='a'>The Vrell pump starts with a lever.</passage>
      <passage id='b'>When the Vrell pump overheats, a red lamp lights up.</passage>
      <question>How does the Vrell pump start and which lamp shows that it overheats?</question>`
    expect(ask(content)).toContain('The Vrell pump starts with a lever. [a]')
    expect(ask(content)).toContain('When the Vrell pump overheats, a red lamp lights up. [b]')
  })

  test('is shortened by whole sentences to what the tokens allow', () => {
    const sentences = ['one', 'two', 'six'].map(
      (word, index) => `Valve number ${word} of the Vrell pump closes at ${index} bar.`,
    )
    const content = `<passage id="p">${sentences.join(' ')}</passage><question>When do the valves of the Vrell pump close?</question>`
    expect(ask(content, 200).match(/\[p\]/gu)?.length).toBeGreaterThan(1)
    expect(ask(content, 25)).toMatch(/^Valve number \w+ of the Vrell pump closes at \d bar\. \[p\]$/u)
  })

  test('quotes earlier messages when there are no passages, and says so when there is nothing', () => {
    const messages = [
      { role: 'user', text: 'The Vrell pump is painted green.' },
      { role: 'user', text: 'How is the Vrell pump painted?' },
    ]
    expect(complete({ messages, format: { kind: 'text' }, maxTokens: 100 })).toBe('The Vrell pump is painted green.')
    expect(ask('Why is the Vrell pump loud?')).toBe('Nothing was given to answer from about: Vrell, pump, loud.')
  })
})

describe('a schema is filled', () => {
  const facts = makeFacts(6)
  const [fact = { id: '', question: '', sentence: '' }] = facts
  const content = `${asPassages(facts)}<question>${fact.question}</question>`

  test('with search queries, distinct and within its bounds', () => {
    const plan = z.object({ queries: z.array(z.string().min(1)).min(3).max(4).describe('search queries') })
    const { queries } = fill(plan, 'How does the Vrell pump start and which lamp shows that it overheats?')
    expect(queries.slice(0, 3)).toEqual(['Vrell pump start lamp overheats', 'Vrell pump start', 'lamp overheats'])
    expect(new Set(queries).size).toBe(queries.length)
  })

  test('with the verbatim sentence, the id of its passage and whether anything was found', () => {
    const notes = z.strictObject({
      found: z.boolean(),
      notes: z.array(z.strictObject({ passageId: z.string(), quote: z.string() })),
      summary: z.string(),
      gaps: z.array(z.string()).describe('further search queries'),
    })
    expect(fill(notes, content)).toEqual({
      found: true,
      notes: [{ passageId: fact.id, quote: fact.sentence }],
      summary: `${fact.sentence} [${fact.id}]`,
      gaps: [],
    })
    const {
      found,
      notes: none,
      summary,
    } = fill(notes, `${asPassages(facts)}<question>Why do geese honk loudly?</question>`)
    expect({ found, none, summary }).toEqual({ found: false, none: [], summary: 'NOT FOUND' })
  })

  test('with a paragraph per sentence that lists the passages it rests on', () => {
    const report = z.object({
      title: z.string(),
      sections: z.array(z.object({ heading: z.string(), text: z.string(), citations: z.array(z.string()).min(1) })),
      verdict: z.enum(['unsupported', 'supported']),
      note: z.string().nullable(),
    })
    expect(fill(report, content)).toMatchObject({
      title: fact.question,
      sections: [{ heading: 'Notes', text: fact.sentence, citations: [fact.id] }],
      verdict: 'supported',
    })
  })

  test('with neutral values that still obey it where it asks for what nothing can supply', () => {
    const odd = z.strictObject({
      code: z.string().min(3).max(10),
      weight: z.number().min(2).max(5),
      tags: z.array(z.int().min(1)).min(2),
      nested: z.array(z.array(z.boolean())),
      kind: z.literal('pump'),
      choice: z.union([z.object({ a: z.boolean() }), z.null()]),
    })
    expect(() => fill(odd, content)).not.toThrow()
  })
})

describe('sentences', () => {
  test('are whole: abbreviations, versions and code do not end them, code blocks, tables and link lists are none', () => {
    const text = [
      '# A title',
      'Use v5.1 or later, e.g. the one by J. Smith et al. in the `reply.send()` guide. It works',
      'on all systems.',
      '```js',
      'const hidden = true. And so on.',
      '```',
      '| a table | with cells |',
      '- [A link only](./a.md)',
      '- `limit`: the greatest size of a body in bytes',
      '> A remark that goes',
      '> over two lines. This one does not.',
    ].join('\n')
    expect(toSentences(text).map((sentence) => sentence.text)).toEqual([
      'Use v5.1 or later, e.g. the one by J. Smith et al. in the `reply.send()` guide.',
      'It works on all systems.',
      '`limit`: the greatest size of a body in bytes',
      'This one does not.',
    ])
  })

  test.each(['Reference/Hooks.md', 'Reference/Server.md', 'Guides/Plugins-Guide.md', 'Reference/Errors.md'])(
    'of %s stand in the page word for word',
    (page) => {
      const text = readFileSync(
        fileURLToPath(import.meta.resolve('fastify')).replace(/fastify\.js$/u, `docs/${page}`),
        'utf8',
      )
      const spaced = text.replaceAll(/\s+/gu, ' ')
      const sentences = toSentences(text)
      expect(sentences.length).toBeGreaterThan(30)
      expect(sentences.filter((sentence) => !spaced.includes(sentence.text))).toEqual([])
    },
  )
})
