import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'

const place = ['provider', 'api_key', 'openai'] as const

test('what was encrypted for a place is read there again, whatever it is', () => {
  const box = secretBox(makeSecretsKey())
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.string(), { maxLength: 4 }), (bytes, anywhere) => {
      const secret = Buffer.from(bytes)
      expect(box.decrypt(anywhere, box.encrypt(anywhere, secret))).toEqual(secret)
    }),
  )
})

test('it is read nowhere else: not in another row, column or table, nor where its parts are cut differently', () => {
  const box = secretBox(makeSecretsKey())
  const kept = box.encrypt(place, Buffer.from('sk-secret'))
  const elsewhere = [
    ['provider', 'api_key', 'anthropic'],
    ['provider', 'key_hint', 'openai'],
    ['webhook', 'api_key', 'openai'],
    ['provider', 'api_keyopenai'],
    [],
  ]
  for (const other of elsewhere) expect(() => box.decrypt(other, kept)).toThrow('cannot be decrypted')
})

test('a changed or cut text is not read, and neither is one under the name of another key', () => {
  const [first, second] = [makeSecretsKey(), makeSecretsKey()]
  const box = secretBox(`${first}\n${second}`)
  const kept = box.encrypt(place, Buffer.from('sk-secret'))
  for (let index = 0; index < kept.bytes.length; index += 1) {
    const bytes = Buffer.from(kept.bytes)
    bytes[index] = (bytes[index] ?? 0) ^ 1
    expect(() => box.decrypt(place, { ...kept, bytes })).toThrow('cannot be decrypted')
    expect(() => box.decrypt(place, { ...kept, bytes: kept.bytes.subarray(0, index) })).toThrow('cannot be decrypted')
  }
  expect(() => box.decrypt(place, { ...kept, encryptedBy: secretBox(second).keyId })).toThrow('cannot be decrypted')
})

test('the same secret looks different each time, and says nothing of itself', () => {
  const box = secretBox(makeSecretsKey())
  const kept = Array.from({ length: 100 }, () => box.encrypt(place, Buffer.from('sk-secret')).bytes.toString('latin1'))
  expect(new Set(kept).size).toBe(100)
  expect(kept.some((text) => text.includes('secret'))).toBe(false)
})

test('the first line encrypts, all decrypt: a key is changed by a line before the old one', () => {
  const [old, new_] = [makeSecretsKey(), makeSecretsKey()]
  const kept = secretBox(old).encrypt(place, Buffer.from('sk-secret'))
  const both = secretBox(`# changed in November\n\n${new_}\r\n  ${old}  \n`)
  expect(both.decrypt(place, kept).toString()).toBe('sk-secret')
  expect(both.encrypt(place, Buffer.from('x')).encryptedBy).toBe(new_.split(':')[0])
  expect(() => secretBox(new_).decrypt(place, kept)).toThrow(
    `no key ${old.split(':')[0]} is in PURSER_SECRETS_KEY_FILE`,
  )
})

test.each([
  ['nothing', '', 'there is no key in it'],
  ['only a comment', '# none\n', 'there is no key in it'],
  ['no id', Buffer.alloc(32, 7).toString('base64'), 'line 1'],
  ['half a key', `a:${Buffer.alloc(16, 7).toString('base64')}`, 'line 1'],
  ['no base64', `a:${'!'.repeat(44)}`, 'line 1'],
  ['base64 that is none to its end', `a:${Buffer.alloc(32, 7).toString('base64').replace('=', '')}`, 'line 1'],
  ['an id twice', `${makeSecretsKey()}\na:${'A'.repeat(43)}=\na:${'B'.repeat(42)}A=`, 'line 3'],
])('a file with %s is refused, and nothing of it is told', (_, text, why) => {
  const told = () => {
    try {
      secretBox(text)
      return ''
    } catch (error) {
      return String(error)
    }
  }
  expect(told()).toContain(why)
  expect(told()).not.toMatch(/[\w+/]{20}/)
})
