import { readDataset, type DatasetFormat } from '#domain/dataset-file.ts'
import { fillTemplate, unknownPlaceholders } from '#domain/row-template.ts'
import { describe, expect, test } from 'vitest'

function read(text: string, format: DatasetFormat) {
  return [...readDataset(text, format)].map((each) =>
    each.ok ? each.row : `${each.fault.line}: ${each.fault.message}`,
  )
}

describe('a CSV file', () => {
  test('is rows of texts by column, with quotes, commas and line breaks inside of cells, and without a byte order mark', () => {
    expect(read('\uFEFFid,text\r\n1,"a, ""b""\nc"\r\n\r\n2,\r\n', 'csv')).toEqual([
      { id: '1', text: 'a, "b"\nc' },
      { id: '2', text: '' },
    ])
  })

  test('tells everything that is wrong with it, each with the line', () => {
    expect(read('id,text\n1\n2,b,c\n3,x\0y\n4,ok\n5,"open', 'csv')).toEqual([
      '2: has 1 cells, and there are 2 columns',
      '3: has 3 cells, and there are 2 columns',
      '4: holds U+0000, which cannot be stored',
      { id: '4', text: 'ok' },
      '6: has a quote that is not closed, or stands in the middle of a cell',
    ])
    expect(read('id,,id,__proto__\n1,2,3,4', 'csv')).toEqual([
      '1: has a column without a name',
      '1: has a column __proto__, which no program can be trusted with',
      '1: has the column "id" twice',
    ])
  })

  test('with one column has a row for an empty text, and none for an empty line', () => {
    expect(read('\n\r\na\n1\n\n""\r\r2\n\n', 'csv')).toEqual([{ a: '1' }, { a: '' }, { a: '2' }])
    expect(read('a\n\n1\n"\n"\n2,3', 'csv')).toEqual([
      { a: '1' },
      { a: '\n' },
      '6: has 2 cells, and there are 1 columns',
    ])
  })

  test('is read no further than a line or a cell that no table has', () => {
    const names = Array.from({ length: 100_000 }, (_, index) => index).join(',')
    expect(read(`${names}\n1`, 'csv')).toEqual(['1: has more than 1000 cells'])
    expect(read(`a\n${','.repeat(30_000_000)}`, 'csv')).toEqual(['2: has more than 1000 cells'])
    expect(read(`a\n"${'\n'.repeat(30_000_000)}"`, 'csv')).toEqual(['2: has a cell of more than 4194304 characters'])
  })

  test('of thirty million quotes is read, or refused, in no time that a server would notice', () => {
    expect(read(`a\n"${'""'.repeat(15_000_000)}`, 'csv')).toHaveLength(1)
  })
})

describe('a file of JSON lines', () => {
  test('is objects, which need not have the same keys', () => {
    expect(read('{"id":1,"a":[true,null]}\n\n  {"id":2,"__x":"y"}\r\n', 'jsonl')).toEqual([
      { id: 1, a: [true, null] },
      { id: 2, __x: 'y' },
    ])
  })

  test('tells everything that is wrong with it, each with the line', () => {
    const deep = `{"a":${'['.repeat(5_000)}${']'.repeat(5_000)}}`
    const lines = ['[1]', '{"a":', '{"__proto__":1}', '{"a":"\\u0000"}', '{"a":{"b":"\\ud800"}}', deep, '{"":1}']
    expect(read([...lines, '{"id":12345678901234567890}', '{"a":1e999}'].join('\n'), 'jsonl')).toEqual([
      '1: is no JSON object',
      '2: is no JSON object',
      '3: has a column __proto__, which no program can be trusted with',
      '4: holds U+0000, which cannot be stored',
      '5: holds half of a character (a lone surrogate)',
      '6: is nested deeper than 32 levels',
      '7: has a column without a name',
      '8: has the number 12345678901234567890, which loses digits in JSON programs: write it as a text',
      '9: has the number 1e999, which loses digits in JSON programs: write it as a text',
    ])
  })
})

test('a line of JSON that no row could be is told without being read, and the others are', () => {
  const long = `{"a":[${'1,'.repeat(10_000_000)}1]}`
  expect(read(`\n\n${long}\n{"a":1}\n`, 'jsonl')).toEqual(['3: has more than 524288 characters', { a: 1 }])
})

describe('a template', () => {
  const columns = ['name', 'age', 'row id']

  test('is filled with values as they are, and with the whole row in the order of its columns', () => {
    const row = { age: 7, 'row id': null, name: 'Ada' }
    const fill = (text: string) => fillTemplate(text, { row, columns })
    expect(fill('{{name}} is {{ age }}, {{row id}}, {single}, {{}}')).toEqual({
      ok: true,
      text: 'Ada is 7, null, {single}, {{}}',
    })
    expect(fill('{{row}}')).toEqual({ ok: true, text: '{"name":"Ada","age":7,"row id":null}' })
    expect(fill('{{name}} {{height}}')).toEqual({ ok: false, missing: 'height' })
    expect(fill('{{constructor}}')).toEqual({ ok: false, missing: 'constructor' })
  })

  test('names a column that begins with a blank, as files written by hand have it', () => {
    const row = { id: '1', ' title': 'x' }
    const spaced = Object.keys(row)
    expect(fillTemplate('{{ id }}{{ title}}', { row, columns: spaced })).toEqual({ ok: true, text: '1x' })
    expect(unknownPlaceholders(['{{ id }}{{ title}}'], spaced)).toEqual([])
    expect(unknownPlaceholders(['{{title}}'], spaced)).toEqual(['title'])
  })

  test('takes nothing of a row for a placeholder, nor for a pattern of replacement', () => {
    const row = { name: "{{age}} $& $1 $'", age: 1, 'row id': 2 }
    expect(fillTemplate('{{name}}', { row, columns })).toEqual({ ok: true, text: "{{age}} $& $1 $'" })
  })

  test('names the placeholders that no row can fill', () => {
    expect(unknownPlaceholders(['{{a}} {{ b }} {{a}}', '{{name}} {{ age }} {{row}}'], columns)).toEqual(['a', 'b'])
    expect(unknownPlaceholders([`{{${' '.repeat(100_000)}`], columns)).toEqual([])
  })
})
