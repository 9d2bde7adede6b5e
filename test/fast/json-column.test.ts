import { json } from '#db/json.ts'
import { describe, expect, test } from 'vitest'

describe('JSON for a column', () => {
  test('has nothing that Postgres refuses, neither in texts nor in names', () => {
    const value = { 'a\0': ['\ud800x', { '\udfff': 'b\0' }], pair: '\u{1F600}' }
    expect(JSON.parse(json(value))).toEqual({ 'a\uFFFD': ['\uFFFDx', { '\uFFFD': 'b\uFFFD' }], pair: '\u{1F600}' })
    expect(json(value)).not.toMatch(/\\u/)
  })

  test('keeps what only looks like it, and what programs stumble over', () => {
    for (const value of [{ text: String.raw`\u0000 \ud800` }, JSON.parse('{"__proto__":{"a\\u0000":1},"b":null}')]) {
      expect(JSON.parse(json(value))).toEqual(JSON.parse(JSON.stringify(value).replaceAll(/(?<!\\)\\u0000/g, '\uFFFD')))
    }
  })

  test('has bigints as decimal strings, and null for nothing', () => {
    expect(json({ nano: 9_007_199_254_740_993n, none: undefined })).toBe('{"nano":"9007199254740993"}')
    expect(json(undefined)).toBe('null')
  })
})
