import { MAX_PASSAGE_LENGTH, splitDocument } from '#tools/passages.ts'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

function split(text: string, source = 'guide.md') {
  return splitDocument({ source, text })
}

function textOf(text: string): string {
  return split(text)
    .passages.map((passage) => passage.text)
    .join('\n')
}

const paragraph = (word: string) => `${`${word} makes a sentence of some length here. `.repeat(18).trim()}`

describe('what a passage is', () => {
  test('long sections become passages of their own, named by the headings above them', () => {
    const { title, passages } = split(
      [
        '# Guide',
        '## Install',
        paragraph('npm'),
        '### On Windows',
        paragraph('setup'),
        '## Use',
        paragraph('call'),
      ].join('\n\n'),
    )
    expect(title).toBe('Guide')
    expect(passages.map((passage) => passage.heading)).toEqual(['Install', 'Install › On Windows', 'Use'])
    expect(passages.map((passage) => passage.text.slice(0, 5))).toEqual(['npm m', 'setup', 'call '])
  })

  test('short sections are joined, each under its own heading', () => {
    expect(split('# Options\n\n## size\n\nBytes it may take.\n\n## depth\n\nLevels it may go down.').passages).toEqual([
      { text: '### size\n\nBytes it may take.\n\n### depth\n\nLevels it may go down.' },
    ])
  })

  test('the project’s name above the first heading belongs to the title', () => {
    const { title, passages } = split('<h1 align="center">Fastify</h1>\n\n## Hooks\n\nHooks are functions.')
    expect(title).toBe('Fastify › Hooks')
    expect(passages).toEqual([{ text: 'Hooks are functions.' }])
  })

  test('a title that was given wins, and a document without headings is called by its file', () => {
    expect(splitDocument({ source: 'a/b.md', title: 'pino', text: '# Other\n\nText.' }).title).toBe('pino')
    expect(split('Only prose.', 'notes/today.txt').title).toBe('today.txt')
  })

  test('underlined headings count like those with marks', () => {
    expect(split('Title\n=====\n\nIntro.\n\nPart\n----\n\nBody.').passages).toEqual([
      { text: 'Intro.\n\n### Part\n\nBody.' },
    ])
  })

  test('a paragraph longer than a passage is cut between sentences', () => {
    const { passages } = split(Array.from({ length: 60 }, (_, at) => `Sentence number ${at} says it.`).join(' '))
    expect(passages.length).toBeGreaterThan(1)
    for (const { text } of passages) expect(text).toMatch(/^Sentence .* it\.$/s)
  })
})

describe('code in passages', () => {
  test('is kept whole, between the same marks whatever the document used', () => {
    expect(textOf('Do so:\n\n~~~ts\nconst answer = 42\n~~~\n')).toBe('Do so:\n\n```ts\nconst answer = 42\n```')
  })

  test('loses the indentation of the list it stands in, and nothing else', () => {
    expect(textOf('- Do so:\n\n  ```js\n  if (a) {\n    b()\n  }\n  ```')).toBe(
      '- Do so:\n\n```js\nif (a) {\n  b()\n}\n```',
    )
  })

  test('that is longer than a passage is cut between lines, with marks around each part', () => {
    const code = Array.from({ length: 80 }, (_, line) => `const value${line} = compute(${line})`).join('\n')
    const { passages } = split(`\`\`\`ts\n${code}\n\`\`\``)
    expect(passages.length).toBeGreaterThan(1)
    for (const { text } of passages) expect(text).toMatch(/^```ts\nconst [\s\S]*\)\n```$/)
    const lines = passages.flatMap(({ text }) => text.split('\n')).filter((line) => !line.startsWith('```'))
    expect(lines.join('\n')).toBe(code)
  })

  test('keeps its headings, links and tags', () => {
    const code = '```md\n# not a heading\n[text](target) <b>bold</b>\n```'
    expect(textOf(`Text.\n\n${code}`)).toBe(`Text.\n\n${code}`)
  })
})

describe('what is left out', () => {
  test.for([
    ['front matter', '---\ntitle: x\n---\nProse.'],
    ['badges', '[![npm](https://a/b.svg)](https://npm)\n![build](x.png)\n\nProse.'],
    ['a table of contents', '- [Install](#install)\n- [Use](#use)\n  - [Deep](#deep)\n\nProse.'],
    ['a row of links in HTML', '<p>\n<a href="x">Docs</a> &nbsp;•&nbsp; <a href="y">Chat</a>\n</p>\n\nProse.'],
    ['comments', '<!-- prettier-ignore -->\n<!--\nmany\n\nlines\n-->\nProse.'],
    ['link definitions', 'Prose.\n\n[a]: https://example.org\n[b]: <x> "y"'],
    ['rules', 'Prose.\n\n---\n\n***'],
    ['the licence section', 'Prose.\n\n## License\n\nMIT, see the file.'],
    ['licence texts', 'Prose.\n\nPermission is hereby granted, free of charge, to any person.\n\nCopyright (c) 2020 X'],
  ] as const)('%s', ([, text]) => {
    expect(textOf(text)).toBe('Prose.')
  })

  test('the imports of MDX, but the same words in Markdown are prose', () => {
    const text = "import Tabs from '@theme/Tabs'\n\nProse."
    expect(split(text, 'a.mdx').passages).toEqual([{ text: 'Prose.' }])
    expect(split(text, 'a.md').passages).toEqual([{ text }])
  })

  test('targets of links, images and tags within a line, but not types or code spans', () => {
    expect(
      textOf(
        'See [the `reply` page](./reply.md "x") and [Ajv][ajv] ![x](y.png)<a id="z"></a>: it gives `Promise<a>` or a Map<Key, Value>.\n\n[ajv]: https://ajv',
      ),
    ).toBe('See the `reply` page and Ajv : it gives `Promise<a>` or a Map<Key, Value>.')
  })

  test('an array index in prose is no link', () => {
    expect(textOf('Take rows[0][1] first.')).toBe('Take rows[0][1] first.')
  })
})

describe('for any document', () => {
  const word = fc.stringMatching(/^[a-z]{3,9}$/)
  const sentence = fc.array(word, { minLength: 1, maxLength: 12 }).map((words) => `${words.join(' ')}.`)
  const prose = fc.array(sentence, { minLength: 1, maxLength: 30 }).map((sentences) => sentences.join(' '))
  const list = fc
    .array(sentence, { minLength: 1, maxLength: 8 })
    .map((items) => items.map((item) => `- ${item}`).join('\n'))
  const code = fc.array(sentence, { minLength: 1, maxLength: 60 }).map((lines) => `\`\`\`\n${lines.join('\n')}\n\`\`\``)
  const heading = fc.tuple(fc.integer({ min: 1, max: 4 }), word).map(([depth, name]) => `${'#'.repeat(depth)} H${name}`)
  const document = fc.array(fc.oneof(prose, list, code, heading), { maxLength: 25 }).map((parts) => parts.join('\n\n'))

  const wordsOf = (text: string) =>
    text
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .join('\n')
      .match(/[a-z]+/g) ?? []

  test('every word of prose and code is in exactly one passage, in its order', () => {
    fc.assert(
      fc.property(document, (text) => {
        expect(wordsOf(textOf(text))).toEqual(wordsOf(text))
      }),
    )
  })

  test('no passage is empty or too long, and the same text gives the same passages', () => {
    fc.assert(
      fc.property(fc.oneof(document, fc.string({ unit: 'binary', maxLength: 4000 })), (text) => {
        const { passages } = split(text)
        for (const passage of passages) {
          expect(passage.text.length).toBeLessThanOrEqual(MAX_PASSAGE_LENGTH)
          expect(passage.text.trim()).not.toBe('')
          expect(passage.text).not.toContain('\0')
        }
        expect(split(text).passages).toEqual(passages)
      }),
    )
  })

  test('odd marks end in no endless work', () => {
    const odd = [
      '['.repeat(5000),
      '<'.repeat(5000),
      '`'.repeat(5001),
      '![['.repeat(2000),
      '> '.repeat(3000),
      '<!--',
      '~~~',
    ]
    for (const text of odd)
      expect(split(`${text} word`).passages.every(({ text: { length } }) => length <= 1200)).toBe(true)
  })
})
