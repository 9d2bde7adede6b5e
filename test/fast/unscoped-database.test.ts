import { globSync, readFileSync } from 'node:fs'
import { posix, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const folder = fileURLToPath(new URL('../../src/api/', import.meta.url))

/** Files of routes that are given the database as no caller sees it, and why. */
const UNSCOPED: Readonly<Record<string, string>> = {
  'health-route.ts': 'asks only whether the database answers, and has no caller',
  'payment-routes.ts': 'the caller is a payment provider, known by its signature: the wallet says whose money it is',
}

test('routes have the database through their request only, as the caller sees it', () => {
  const files = globSync('**/*-route{,s}.ts', { cwd: folder }).map((file) => file.split(sep).join(posix.sep))
  const unscoped = files.filter((file) =>
    // The type that has the database, what opens one, and what takes a caller out of a request by itself.
    /\bApiDeps\b|\b(connectDatabase|poolOf|asTenant)\b/.test(readFileSync(`${folder}${file}`, 'utf8')),
  )
  expect(files.length).toBeGreaterThan(30)
  expect(unscoped.sort()).toEqual(Object.keys(UNSCOPED).sort())
})
