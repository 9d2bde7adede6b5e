export { map } from '#workflows/map.ts'
export { oneByOne } from './one-by-one.ts'
export { stepper } from './stepper.ts'
export { waiter } from './waiter.ts'
