import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { digestOfJson, digestOfText } from '../support/document-digest.ts'
import { managementDocument } from '../support/documented-api.ts'

const FILE = fileURLToPath(new URL('../../src/client/schema.ts', import.meta.url))
const HEAD = /^\/\/ Of the document (?<document>\w+)\n\/\/ types (?<types>\w+), by npm run generate:client\.\n/

test('the types of the client are those of the document: if not, npm run generate:client', async () => {
  const text = await readFile(FILE, 'utf8')
  const head = HEAD.exec(text)
  const types = text.slice(head?.[0].length)
  expect(head?.groups).toEqual({ document: digestOfJson(await managementDocument()), types: digestOfText(types) })
})
